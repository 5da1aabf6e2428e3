/** What is said of pasted lines that are no variables. */
import { unreadVariables } from "../command-line";
import { say } from "../words/index.svelte";

/** So many of them are shown: a pasted key has dozens, and where they are shown is beside what is to be mended. */
const NAMED = 3;
/** So much of each is shown. */
const SHOWN = 60;

export function variableProblems(text: string): string[] {
  const unread = unreadVariables(text);
  const named = unread.slice(0, NAMED).map((line) => say("badVariable", { text: line.trim().slice(0, SHOWN) }));
  const more = unread.length - named.length;
  return more === 0 ? named : [...named, say("badVariablesMore", { count: more })];
}
