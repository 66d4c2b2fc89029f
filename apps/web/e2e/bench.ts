import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { expect, test } from "./test";

const MEMBERS = 1_000;
const MESSAGES = 10_000;
const LOADS = 10;
/** As fast as a strong flick of the wheel: 9,000 pixels a second. */
const STEP = 150;

function print(...columns: (string | number)[]): void {
  console.log(`| ${columns.join(" | ")} |`);
}

function quantile(values: number[], q: number): string {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN).toFixed(1);
}

/** Calls `make` for 0 to `count`, a few at a time. */
async function many(count: number, make: (n: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < count) await make(next++);
  };
  await Promise.all(Array.from({ length: 16 }, worker));
}

test("sizes", () => {
  const assets = fileURLToPath(new URL("../dist/assets", import.meta.url));
  print("file", "kB", "gzip", "brotli");
  for (const name of readdirSync(assets).filter((name) => !/\.(br|gz)$/.test(name))) {
    const bytes = readFileSync(join(assets, name));
    const kb = (of: Uint8Array) => (of.length / 1_000).toFixed(1);
    print(name, kb(bytes), kb(gzipSync(bytes, { level: 9 })), kb(brotliCompressSync(bytes)));
  }
});

test("from page load to READY", async ({ person, place, browser, pages }) => {
  const ada = await person("Ada");
  const { path } = await place(ada.account);
  const cookies = await ada.page.context().cookies();
  const watch = () => {
    const Plain = WebSocket;
    window.WebSocket = class extends Plain {
      constructor(...args: ConstructorParameters<typeof Plain>) {
        super(...args);
        this.addEventListener("message", ({ data }) => {
          if (String(data).includes('"READY"')) Object.assign(window, { ready: performance.now() });
        });
      }
    };
  };
  const ready = async (page: typeof ada.page) => {
    const at = await page.waitForFunction(() => (window as unknown as { ready?: number }).ready);
    return Number(await at.jsonValue());
  };
  await ada.page.addInitScript(watch);
  const [cold, warm, painted]: [number[], number[], number[]] = [[], [], []];
  for (let n = 0; n < LOADS; n++) {
    // Another browser context has an empty cache. The cookie moves on, since each is good once.
    const page = await pages(browser);
    await page.addInitScript(watch);
    await page.context().addCookies(n === 0 ? cookies : await ada.page.context().cookies());
    await page.goto(path);
    cold.push(await ready(page));
    const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
    if (paint) painted.push(paint);
    await ada.page.context().addCookies(await page.context().cookies());
    await page.context().close();
    await ada.page.goto(path);
    warm.push(await ready(ada.page));
  }
  print("milliseconds", "median", "worst");
  print("first paint, nothing cached", quantile(painted, 0.5), quantile(painted, 1));
  print("READY, nothing cached", quantile(cold, 0.5), quantile(cold, 1));
  print("READY, cached", quantile(warm, 0.5), quantile(warm, 1));
});

test("scrolling 10,000 messages of 1,000 members", async ({ person, place, api }) => {
  const ada = await person("Ada");
  const { guildId, channelId, path } = await place(ada.account);
  const members: string[] = [];
  await many(MEMBERS, async (n) => {
    const userId = await api.user(`Member ${n}`);
    await api.behalf(userId).join(guildId);
    members.push(userId);
  });
  const texts = [
    "ok",
    "Did you **see** that?\nI did not.",
    "A longer one, ".repeat(20),
    "`code` and https://example.org/a",
    "> quoted\n\nanswered",
  ];
  await many(MESSAGES, async (n) => {
    const author = members[(n * 7) % members.length] ?? "";
    await api.behalf(author).say(channelId, `${n} ${texts[n % texts.length]}`);
  });
  await ada.page.goto(path);
  await expect(ada.messages.getByRole("article").first()).toBeVisible();

  /** Scrolls at a steady speed until `edge`, and gives the time between frames. */
  const scroll = (direction: 1 | -1) =>
    ada.messages.evaluate(
      (list, step) =>
        new Promise<{ frames: number[]; rows: number }>((done) => {
          const frames: number[] = [];
          let rows = 0;
          let last = performance.now();
          let still = 0;
          const frame = (now: number) => {
            frames.push(now - last);
            last = now;
            rows = Math.max(rows, list.querySelectorAll("article").length);
            const before = list.scrollTop;
            list.scrollTop += step;
            const begun = step < 0 ? list.querySelector(".beginning") && before <= 0 : list.scrollTop === before;
            still = begun ? still + 1 : 0;
            if (still > 30) done({ frames: frames.slice(1), rows });
            else requestAnimationFrame(frame);
          };
          requestAnimationFrame(frame);
        }),
      direction * STEP,
    );
  print("frames in ms", "count", "median", "p95", "p99", "worst", "over 50 ms", "rows in the document");
  const report = (what: string, frames: number[], rows: number) => {
    const long = frames.filter((ms) => ms > 50).length;
    print(what, frames.length, ...[0.5, 0.95, 0.99, 1].map((q) => quantile(frames, q)), long, rows);
  };
  // What the machine does with a page that has nothing to do.
  const empty = await ada.page.context().newPage();
  const idle = await empty.evaluate(async () => {
    const frames: number[] = [];
    let last = performance.now();
    while (frames.length < 600) {
      const now = await new Promise<number>((done) => requestAnimationFrame(done));
      frames.push(now - last);
      last = now;
    }
    return frames.slice(1);
  });
  await empty.close();
  report("an empty page", idle, 0);
  for (const [what, direction] of [
    ["up, loading each page", -1],
    ["down, all loaded", 1],
    ["up, all loaded", -1],
  ] as const) {
    const { frames, rows } = await scroll(direction);
    report(what, frames, rows);
  }
  const heap = await ada.page.evaluate(
    () => (performance as unknown as { memory?: { usedJSHeapSize: number } }).memory?.usedJSHeapSize,
  );
  print("JavaScript heap, MB", ((heap ?? 0) / 1e6).toFixed(0));
});
