/** Light or dark: as the desktop has it, unless a person has chosen one. */
import { kept, type Kept } from "./kept";

export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

const KEY = "theme";

export function chosenTheme(choices: Kept = kept): Theme {
  const chosen = choices.get(KEY);
  return THEMES.find((theme) => theme === chosen) ?? "system";
}

/**
 * Has every colour of the page follow it. The style sheet names each for light and dark, and says which of them are meant:
 * where the build spells `light-dark()` out for older engines, a style set from here would change nothing.
 */
export function showTheme(theme: Theme, root: { dataset: DOMStringMap } = document.documentElement): void {
  root.dataset["theme"] = theme;
}

/** Shows it now and at every start from now on. */
export function chooseTheme(theme: Theme, choices: Kept = kept, root?: { dataset: DOMStringMap }): void {
  choices.set(KEY, theme === "system" ? null : theme);
  showTheme(theme, root);
}
