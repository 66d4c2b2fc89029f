import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { services } from "./services";

const BINARY = process.env.JISCORD_BIN ?? fileURLToPath(new URL("../../../target/debug/jiscord", import.meta.url));

/** The token by which tests make many users and messages at once. */
export const SERVICE_TOKEN = "only-for-tests-0123456789-0123456789";

/** The server under test. */
export interface Server {
  /** Where the page is. */
  url: string;
  stop(): Promise<void>;
  /** On the address it had. */
  start(): Promise<void>;
}

/** What tests need more of than people do. */
const SETTINGS = {
  JISCORD_SERVICE_TOKEN: SERVICE_TOKEN,
  JISCORD_LIMIT_LOGIN_PER_SECOND: "1000",
  JISCORD_LIMIT_LOGIN_BURST: "1000",
};

/**
 * The all-in-one on a folder of its own. With JISCORD_E2E=services: the three services behind the entry. With JISCORD_URL: the server there, which JISCORD_STOP and JISCORD_START stop and start
 * (commands for sh; each returns when that is done).
 */
export async function serve(env: Record<string, string> = {}): Promise<Server & { end(): Promise<void> }> {
  const url = process.env.JISCORD_URL;
  if (url) {
    const run = async (command: string | undefined) => {
      if (!command) throw new Error("JISCORD_STOP and JISCORD_START say how the server at JISCORD_URL is restarted");
      await promisify(execFile)("sh", ["-c", command]);
    };
    return {
      url,
      stop: () => run(process.env.JISCORD_STOP),
      start: () => run(process.env.JISCORD_START),
      end: async () => {},
    };
  }
  if (process.env.JISCORD_E2E === "services") return services(BINARY, { ...SETTINGS, ...env });
  const folder = await mkdtemp(join(tmpdir(), "jiscord-web-"));
  let port = "0";
  let child: ChildProcess | undefined;
  const server = {
    url: "",
    async start() {
      const started = spawn(BINARY, {
        env: {
          PATH: process.env.PATH,
          JISCORD_DATA_DIR: join(folder, "data"),
          ...SETTINGS,
          JISCORD_LOG: "warn",
          ...env,
          PORT: port,
        },
        stdio: ["ignore", "pipe", "inherit"],
      });
      child = started;
      for await (const line of createInterface({ input: started.stdout })) {
        const found = /^Jiscord is at (http:\/\/\S+?)\/?$/.exec(line);
        if (found?.[1]) {
          server.url = found[1];
          port = new URL(server.url).port;
          // Read on, so that it never waits for somebody to listen.
          started.stdout.resume();
          return;
        }
      }
      throw new Error("the server ended before it said its address");
    },
    async stop() {
      if (child?.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "exit");
      child.kill("SIGTERM");
      await ended;
    },
    async end() {
      await server.stop();
      await rm(folder, { recursive: true });
    },
  };
  await server.start();
  return server;
}
