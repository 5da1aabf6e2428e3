/** What the command palette offers: what can be done, where one can go, and what there is. */
import type { ContainerAction, ContainerRow } from "../host";
import { href } from "../route.svelte";
import { say, type Word } from "../words/index.svelte";
import { actionCommand, actionsFor } from "./containers.svelte";

/** So many are shown. */
const SHOWN = 11;

export interface Entry {
  /** No other one has it. */
  id: string;
  label: string;
  /** The same where it is clear what it is about, such as in the menu of a row. */
  word: string;
  note: string;
  /** Whether something is lost by it, which is asked before. */
  danger?: boolean;
  /** The keys that do the same; empty where none do. */
  keys: string;
  /** An address of the window, or what is done. */
  to: string | (() => void);
}

export function goTo(label: string, to: string, note = ""): Entry {
  return { id: to, label, word: label, note, keys: "", to };
}

export function doIt(label: string, act: () => void, note = "", keys = ""): Entry {
  return { id: `do ${label} ${note}`, label, word: label, note, keys, to: act };
}

/** What is done to something of that name. */
export function doTo(word: Word, name: string, act: () => void, command: string): Entry {
  return { ...doIt(`${say(word)}: ${name}`, act, command), word: say(word) };
}

/** The same of what is lost by it, which asks before. */
export function loseBy(word: Word, name: string, ask: () => void, command: string): Entry {
  return { ...doTo(word, name, ask, command), danger: true };
}

/** What needs no question before: what kills or removes asks where it says what is lost. */
const HARMLESS: readonly ContainerAction[] = ["start", "stop", "restart", "pause", "unpause"];

/** What can be done to a container, and looked at of it. */
export function entriesOf(row: ContainerRow, act: (action: ContainerAction, id: string) => void): Entry[] {
  const actions = actionsFor(row).filter((action) => HARMLESS.includes(action));
  const tabs: readonly ("logs" | "terminal" | "files")[] = row.state === "running" ? ["logs", "terminal", "files"] : ["logs", "files"];
  return [
    ...actions.map((action) => doTo(action, row.name, () => act(action, row.id), actionCommand(action, [row]))),
    ...tabs.map((tab) => ({ ...goTo(`${say(tab)}: ${row.name}`, href("containers", row.id, tab), row.image), word: say(tab) })),
  ];
}

/** The first that hold every word of what was typed. */
export function found(entries: readonly Entry[], search: string): Entry[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const hits: Entry[] = [];
  for (const entry of entries) {
    const text = `${entry.label} ${entry.note}`.toLowerCase();
    if (words.every((word) => text.includes(word))) hits.push(entry);
    if (hits.length === SHOWN) break;
  }
  return hits;
}
