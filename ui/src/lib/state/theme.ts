/** Light or dark: as the desktop has it, unless a person has chosen one. */
import { kept, type Kept } from "./kept";

export const THEMES = ["system", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

const KEY = "theme";

export function chosenTheme(choices: Kept = kept): Theme {
  const chosen = choices.get(KEY);
  return THEMES.find((theme) => theme === chosen) ?? "system";
}

/** Has every colour of the page follow it; the style sheet names each for light and dark. */
export function showTheme(theme: Theme, style: { colorScheme: string } = document.documentElement.style): void {
  style.colorScheme = theme === "system" ? "" : theme;
}

/** Shows it now and at every start from now on. */
export function chooseTheme(theme: Theme, choices: Kept = kept, style?: { colorScheme: string }): void {
  choices.set(KEY, theme === "system" ? null : theme);
  showTheme(theme, style);
}
