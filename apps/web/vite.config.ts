import react from "@vitejs/plugin-react";
import type { ProxyOptions } from "vite";
import { defineConfig } from "vitest/config";

// Where the page's requests go in development and in `vite preview`. The all-in-one takes the paths as they are; the three
// services take them without the prefix.
function proxy(): Record<string, ProxyOptions> {
  if (process.env.JISCORD_WEB_SERVICES) {
    const without = (prefix: string) => (path: string) => path.slice(prefix.length) || "/";
    return {
      "/api/auth": {
        target: process.env.AUTH_SERVICE_URL ?? "http://127.0.0.1:3003",
        rewrite: without("/api/auth"),
      },
      "/api/data": {
        target: process.env.DATA_SERVICE_URL ?? "http://127.0.0.1:3001",
        rewrite: without("/api/data"),
      },
      "/ws": { target: process.env.GATEWAY_URL ?? "http://127.0.0.1:3002", ws: true },
    };
  }
  const target = process.env.JISCORD_WEB_SERVER ?? "http://127.0.0.1:3000";
  return { "/api": { target }, "/ws": { target, ws: true } };
}

export default defineConfig({
  plugins: [react()],
  build: {
    // Every asset is a file of its own with a hash in its name: the page's policy takes no data: address.
    assetsInlineLimit: 0,
    // Scripts and style sheets are named in index.html; nothing has to be fetched ahead.
    modulePreload: { polyfill: false },
  },
  server: { port: 5173, strictPort: true, proxy: proxy() },
  preview: { port: 5173, strictPort: true, proxy: proxy() },
  test: { environment: "jsdom", include: ["src/**/*.test.{ts,tsx}"] },
});
