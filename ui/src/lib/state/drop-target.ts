/** A part of the window that takes what is dropped while it is shown, in place of the question what to do with it. */
import type { Word } from "../words/index.svelte";

interface Target {
  /** What the window says while something is dragged over it. */
  word: Word;
  /** Where it does not want all of what may come; the window asks about the rest. */
  wants?: (paths: string[]) => boolean;
  take: (paths: string[]) => void;
}

let current: Target | null = null;

/** Takes what is dropped until the returned function is called. */
export function takeDrops(target: Target): () => void {
  current = target;
  return () => {
    if (current === target) current = null;
  };
}

/** Who takes it now; null where the window asks. */
export function dropTarget(): Target | null {
  return current;
}
