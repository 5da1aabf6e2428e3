import { defineConfig } from "@playwright/test";

/** The system's Chromium: Playwright's own browsers are not downloaded. */
const browser = process.env["COVE_CHROMIUM"] ?? "/usr/bin/chromium";

export default defineConfig({
  testDir: "e2e",
  workers: 1,
  timeout: 60_000,
  reporter: "list",
  use: {
    baseURL: "http://127.0.0.1:4173",
    viewport: { width: 1280, height: 800 },
    launchOptions: { executablePath: browser, args: ["--no-sandbox"] },
    locale: "en-GB",
    reducedMotion: "reduce",
  },
  webServer: { command: "npx vite preview --host 127.0.0.1 --port 4173 --strictPort", url: "http://127.0.0.1:4173", reuseExistingServer: false },
});
