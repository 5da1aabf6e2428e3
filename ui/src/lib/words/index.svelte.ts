/** The words on the screen, by the browser's language. */
import { de } from "./de";
import { en, type Word } from "./en";

export type { Word };

const german = typeof navigator !== "undefined" && navigator.language.toLowerCase().startsWith("de");
const catalogue: Record<Word, string> = german ? de : en;
export const language = german ? "de" : "en";

/** The word, with `{name}` replaced by its value. */
export function say(word: Word, values: Record<string, string | number> = {}): string {
  return catalogue[word].replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}
