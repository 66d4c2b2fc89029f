import type { Change, Sdk } from "./index";
import init, { Jiscord } from "./pkg/jiscord_web";
import wasm from "./pkg/jiscord_web_bg.wasm?url";

/** Loads the SDK, then makes one that speaks to the server at `base`. */
export async function load(base: string, listener: (change: Change) => void): Promise<Sdk> {
  await init({ module_or_path: wasm });
  return new Jiscord(base, listener);
}
