import { useEffect } from "react";
import { useSelect, useStore } from "../context/AuthContext";

/** What a user is called; undefined until it is known. */
export function useName(userId: string, known?: string): string | undefined {
  const store = useStore();
  const name = useSelect((state) => state.names[userId]) ?? known;
  useEffect(() => {
    if (!name) store.askName(userId);
  }, [store, name, userId]);
  return name;
}
