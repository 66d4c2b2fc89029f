import { useSyncExternalStore } from "react";

/** One clock for all that show a time: it ticks while somebody looks. */
function clock(every: number) {
  const subscribers = new Set<() => void>();
  let timer: ReturnType<typeof setInterval> | undefined;
  let now = Date.now();
  return {
    subscribe(subscriber: () => void) {
      subscribers.add(subscriber);
      now = Date.now();
      timer ??= setInterval(() => {
        now = Date.now();
        for (const tell of subscribers) tell();
      }, every);
      return () => {
        subscribers.delete(subscriber);
        if (subscribers.size === 0) {
          clearInterval(timer);
          timer = undefined;
        }
      };
    },
    read: () => now,
  };
}

const seconds = clock(1_000);
const minutes = clock(30_000);

/** The time in Unix milliseconds, every second or every half minute. */
export function useNow(every: "second" | "minute"): number {
  const source = every === "second" ? seconds : minutes;
  return useSyncExternalStore(source.subscribe, source.read);
}
