import { useSyncExternalStore } from "react";

function subscribe(subscriber: () => void): () => void {
  document.addEventListener("visibilitychange", subscriber);
  return () => document.removeEventListener("visibilitychange", subscriber);
}

/** Whether somebody can see the page. */
export function useVisible(): boolean {
  return useSyncExternalStore(subscribe, () => document.visibilityState === "visible");
}
