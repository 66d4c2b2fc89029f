import { defineConfig } from "@playwright/test";
import tests from "./playwright.config";

// `npm run bench` prints what docs/benchmarks.md records. It asserts nothing about time.
export default defineConfig({
  ...tests,
  // What watches a page for its trace is in its numbers.
  use: { ...tests.use, trace: "off" },
  grep: undefined,
  testMatch: "bench.ts",
  workers: 1,
  timeout: 900_000,
  reporter: "line",
});
