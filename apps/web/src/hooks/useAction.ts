import { useState } from "react";
import { errorOf, sentence } from "../sdk";

/** Runs something that takes a while: whether it runs, and why it failed in the end. */
export function useAction<A extends unknown[]>(action: (...args: A) => Promise<void>) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const run = async (...args: A) => {
    setBusy(true);
    setError(null);
    try {
      await action(...args);
    } catch (thrown) {
      setError(sentence(errorOf(thrown)));
    } finally {
      setBusy(false);
    }
  };
  return { run, busy, error };
}
