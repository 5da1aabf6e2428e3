/** What a person asks for elsewhere, such as in the palette, and a screen asks about: its dialogs are its own. */
import type { Screen } from "../route.svelte";

export interface Wish {
  screen: Screen;
  what: "pull" | "clear" | "create" | "remove" | "down";
  /** The key of the row that it is about; empty for none. */
  key: string;
}

export class Wishes {
  #now = $state.raw<Wish | null>(null);

  ask(screen: Screen, what: Wish["what"], key = ""): void {
    this.#now = { screen, what, key };
  }

  /** What is asked of this screen. It is told once. */
  take(screen: Screen): Wish | null {
    const wish = this.#now;
    if (wish?.screen !== screen) return null;
    this.#now = null;
    return wish;
  }
}

/** The window's. */
export const wishes = new Wishes();
