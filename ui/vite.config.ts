import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defaultClientConditions } from "vite";
import { defineConfig } from "vitest/config";

/** Tests that mount components, and so need a page. */
const MOUNTED = "src/lib/{parts,screens}/*.test.ts";

export default defineConfig({
  plugins: [svelte()],
  build: { target: "es2022", sourcemap: false },
  test: {
    projects: [
      { extends: true, test: { name: "logic", include: ["src/**/*.test.ts"], exclude: [MOUNTED], environment: "node" } },
      {
        extends: true,
        // Of Svelte's two halves only the browser's mounts anything; vitest resolves as a server does.
        resolve: { conditions: [...defaultClientConditions] },
        test: { name: "components", include: [MOUNTED], environment: "happy-dom" },
      },
    ],
  },
});
