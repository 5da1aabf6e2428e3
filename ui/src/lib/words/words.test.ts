import { expect, it } from "vitest";
import { de } from "./de";
import { en, type Word } from "./en";

/** The values that a text has places for, each once. */
function places(text: string): string[] {
  return [...new Set(text.match(/\{\w+\}/g))].sort();
}

it("a text has places for the same values in both languages, and says something", () => {
  for (const word of Object.keys(en) as Word[]) {
    expect([word, places(de[word])]).toEqual([word, places(en[word])]);
    expect(de[word].trim(), word).not.toBe("");
  }
});
