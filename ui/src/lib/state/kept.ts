/**
 * What the window remembers from one start to the next beside the daemon's and the engine's things: choices of little
 * weight. The web view keeps them with what can be fetched again, so that they may be gone, or be anything.
 */
export interface Kept {
  get(name: string): string | null;
  /** Null forgets it. */
  set(name: string, value: string | null): void;
}

const keyOf = (name: string): string => `cove.${name}`;

/** What this web view keeps. */
export const kept: Kept = {
  get(name) {
    try {
      return localStorage.getItem(keyOf(name));
    } catch {
      // A web view that keeps nothing remembers nothing.
      return null;
    }
  },
  set(name, value) {
    try {
      if (value === null) localStorage.removeItem(keyOf(name));
      else localStorage.setItem(keyOf(name), value);
    } catch {
      // What was chosen holds for now.
    }
  },
};
