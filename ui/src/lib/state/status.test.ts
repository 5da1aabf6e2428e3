import { expect, it } from "vitest";
import { de } from "../words/de";
import { en } from "../words/en";
import type { Word } from "../words/index.svelte";
import { statusWords } from "./status";

const by = (words: Record<Word, string>) => (status: string) =>
  statusWords(status, (word, values = {}) => words[word].replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole)));

it("says in English what the engine says", () => {
  const times = ["Less than a second", "1 second", "59 seconds", "About a minute", "37 minutes", "About an hour", "47 hours", "13 days", "8 weeks", "23 months", "3 years"];
  const lines = times.flatMap((time) => [`Up ${time}`, `Up ${time} (Paused)`, `Exited (137) ${time} ago`, `Restarting (1) ${time} ago`]);
  const all = [...lines, "Created", "Dead", "Removal In Progress"];
  expect(all.map(by(en))).toEqual(all);
  expect(all.map(by(de)).filter((text, at) => text === all[at]), "in German none of it stays").toEqual([]);
});

it("says it in another language, and leaves as it is what it does not know", () => {
  expect(by(de)("Up About an hour")).toBe("Läuft seit etwa einer Stunde");
  expect(by(de)("Up 12 minutes (Paused)")).toBe("Läuft seit 12 Minuten (pausiert)");
  expect(by(de)("Up 2 fortnights")).toBe("Läuft seit 2 fortnights");
  for (const other of ["", "Hibernating", "Exited 2 minutes ago"]) expect(by(de)(other)).toBe(other);
});
