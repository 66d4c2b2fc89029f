import type { Change, Sdk } from "./index";
import init, { Jiscord } from "./pkg/jiscord_web";

/** Loads the SDK, then makes one that speaks to the server at `base`. */
export async function load(base: string, listener: (change: Change) => void): Promise<Sdk> {
  await init();
  return new Jiscord(base, listener);
}
