/**
 * Whether shortcuts of a single character are heard. Who speaks to the computer, or strikes keys by mistake, may not want
 * them: WCAG 2.1.4 asks that they can be turned off.
 */
import { say } from "../words/index.svelte";
import { kept, type Kept } from "./kept";
import { SEARCH } from "./shortcuts";

const KEY = "single-keys";
const OFF = "off";

export class SingleKeys {
  #on = $state(true);
  readonly #choices: Kept;

  constructor(choices: Kept = kept) {
    this.#choices = choices;
    this.#on = choices.get(KEY) !== OFF;
  }

  get on(): boolean {
    return this.#on;
  }

  /** Holds now and at every start from now on. */
  set on(on: boolean) {
    this.#on = on;
    this.#choices.set(KEY, on ? null : OFF);
  }
}

/** The window's. */
export const singleKeys = new SingleKeys();

/** What stands in the empty field of a search: what it is, and the key that leads there while it does. */
export function searchHint(): string {
  return singleKeys.on ? `${say("search")}  ${SEARCH}` : say("search");
}
