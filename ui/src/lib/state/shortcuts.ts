/** The keys of the window, as its list of them says. Who hears them is `App.svelte`, and what they are about. */
import type { Word } from "../words/index.svelte";

export const PALETTE = "Ctrl+K";
export const TASKS = "Ctrl+J";
export const SHORTCUTS = "F1";
export const NEXT_PANE = "Ctrl+F6";
export const SEARCH = "/";

export const ALL: readonly (readonly [keys: string, does: Word])[] = [
  [PALETTE, "keyPalette"],
  [TASKS, "keyTasks"],
  [SEARCH, "keySearch"],
  ["Shift+F10", "keyRowMenu"],
  ["Esc", "keyClose"],
  [NEXT_PANE, "keyNextPane"],
  ["Ctrl+Shift+F6", "keyLastPane"],
  ["Ctrl+S", "keySaveFile"],
  ["Ctrl+A", "keyLogAll"],
  ["Shift+↓", "keyLogMore"],
  ["Ctrl+C", "keyLogCopy"],
  ["Ctrl+Shift+C", "keyTerminalCopy"],
  [SHORTCUTS, "keyShortcuts"],
];

/** Whether it is a single character, which `single-keys.svelte.ts` turns off. */
export function isSingle(keys: string): boolean {
  return [...keys].length === 1;
}
