import svelte from "eslint-plugin-svelte";
import globals from "globals";
import ts from "typescript-eslint";

export default ts.config(
  { ignores: ["dist", "src/lib/host/types.gen.ts", "test-results"] },
  ...ts.configs.strict,
  ...svelte.configs.recommended,
  { languageOptions: { globals: { ...globals.browser, ...globals.node } } },
  {
    files: ["**/*.svelte", "**/*.svelte.ts"],
    languageOptions: { parserOptions: { parser: ts.parser } },
    // Links are hashes made by `href`, which has no SvelteKit to resolve against.
    rules: { "svelte/no-navigation-without-resolve": "off" },
  },
  {
    files: ["src/**"],
    ignores: ["src/lib/host/**"],
    rules: { "no-restricted-imports": ["error", { patterns: ["@tauri-apps/*"] }] },
  },
);
