import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import type { Server } from "./server";

/** A program that says where it listens, and listens there again after an end. */
class Program {
  url = "";
  #child: ChildProcess | undefined;
  #port = "0";

  constructor(
    readonly path: string,
    readonly env: Record<string, string | undefined>,
  ) {}

  async start(): Promise<void> {
    const env = { ...this.env, PATH: process.env.PATH, PORT: this.#port };
    const child = spawn(this.path, { env, stdio: ["ignore", "pipe", "inherit"] });
    this.#child = child;
    for await (const line of createInterface({ input: child.stdout })) {
      const found = / is at (http:\/\/\S+?)\/?$/.exec(line);
      if (found?.[1]) {
        this.url = found[1];
        this.#port = new URL(this.url).port;
        // Read on, so that it never waits for somebody to listen.
        child.stdout.resume();
        return;
      }
    }
    throw new Error(`${this.path} ended before it said its address`);
  }

  async stop(): Promise<void> {
    if (this.#child?.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGTERM");
    await ended;
  }
}

/** A Redis of its own, which forgets everything at its end. */
async function redis(folder: string): Promise<{ url: string; end(): Promise<void> }> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const address = probe.address();
  const port = typeof address === "object" ? String(address?.port) : "";
  probe.close();
  await once(probe, "close");
  const args = ["--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", folder];
  const child = spawn("redis-server", args, { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.includes("Ready to accept connections")) break;
  }
  child.stdout.resume();
  const end = async () => {
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  };
  return { url: `redis://127.0.0.1:${port}`, end };
}

/**
 * data-service, auth-service and a gateway behind the entry, on a Redis of their own and a keyspace of the database that
 * JISCORD_TEST_CQL names (host:port). The programs lie beside `binary`.
 */
export async function services(
  binary: string,
  env: Record<string, string>,
): Promise<Server & { end(): Promise<void> }> {
  const database = process.env.JISCORD_TEST_CQL;
  if (!database) throw new Error("JISCORD_TEST_CQL=host:port of a ScyllaDB or Cassandra is not set");
  const folder = await mkdtemp(join(tmpdir(), "jiscord-web-"));
  const { url: redisUrl, end } = await redis(folder);
  const settings: Record<string, string> = {
    ...env,
    SCYLLA_CONTACT_POINTS: database,
    SCYLLA_KEYSPACE: `web_${randomBytes(8).toString("hex")}`,
    REDIS_URL: redisUrl,
    JWT_SECRET: randomBytes(32).toString("hex"),
    JISCORD_TRUSTED_PROXIES: "127.0.0.1",
    JISCORD_LOG: "warn",
  };
  const running: Program[] = [];
  const start = async (name: string, own: Record<string, string>) => {
    const program = new Program(join(dirname(binary), name), own);
    running.push(program);
    await program.start();
    return program.url;
  };
  const data = await start("data-service", settings);
  const auth = await start("auth-service", { ...settings, DATA_SERVICE_URL: data });
  const gateway = await start("gateway", { ...settings, DATA_SERVICE_URL: data, AUTH_SERVICE_URL: auth });
  const urls = { DATA_SERVICE_URL: data, AUTH_SERVICE_URL: auth, GATEWAY_URL: gateway };
  const url = await start("jiscord", { ...urls, JISCORD_LOG: "warn" });
  const stop = async () => {
    for (const program of running.toReversed()) await program.stop();
  };
  return {
    url,
    stop,
    async start() {
      for (const program of running) await program.start();
    },
    async end() {
      await stop();
      await end();
      await rm(folder, { recursive: true });
    },
  };
}
