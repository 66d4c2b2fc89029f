import { defineConfig } from "@playwright/test";

// Against the all-in-one, which every worker starts for itself; or, with JISCORD_E2E=services, against the three services, or
// against a server that is there, at JISCORD_URL: then only what is marked @services runs (see e2e/server.ts).
const few = process.env.JISCORD_URL || process.env.JISCORD_E2E === "services";

export default defineConfig({
  testDir: "e2e",
  outputDir: "e2e/results",
  testMatch: "*.spec.ts",
  grep: few ? /@services/ : undefined,
  workers: few ? 1 : 2,
  forbidOnly: process.env.CI === "true",
  reporter: [["list"]],
  // Long enough for a machine that does other things too: what is awaited is an event, not a time.
  timeout: 180_000,
  expect: { timeout: 30_000 },
  use: {
    browserName: "chromium",
    locale: "en-GB",
    timezoneId: "Europe/Berlin",
    launchOptions: { executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium" },
    viewport: { width: 1280, height: 800 },
    trace: "retain-on-failure",
  },
});
