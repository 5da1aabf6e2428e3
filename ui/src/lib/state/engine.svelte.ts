/**
 * Whether the engine of the machine that runs answers. While it does not, its lists show what was last known of it, say
 * so, and offer nothing that it would have to do.
 */
import { createContext, untrack } from "svelte";
import type { Failure, Host, Stop } from "../host";

/** What is there again sooner is not worth a word: milliseconds. */
export const GRACE = 1000;
/** The id of the notice that says so on a screen, and takes the focus that a button cannot keep. */
export const NOTICE = "engine-notice";

export class Engine {
  /** Why it does not answer; null while it does. */
  lost = $state.raw<Failure | null>(null);
  /** How often it has come to answer again, however short that it did not: what is read once is read anew then. */
  returns = $state(0);
  readonly #host: Pick<Host, "watchEngine">;

  constructor(host: Pick<Host, "watchEngine">) {
    this.#host = host;
  }

  follow(): Stop {
    let why: Failure | null = null;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const hear = (news: Failure | null) => {
      if (news === null && why !== null) this.returns += 1;
      why = news;
      if (news === null || this.lost !== null) {
        clearTimeout(timer);
        [timer, this.lost] = [undefined, news];
      } else {
        // Another reason is no new beginning.
        timer ??= setTimeout(() => (this.lost = why), GRACE);
      }
    };
    // An effect that begins this must not depend on what it tells at once.
    const stop = untrack(() => this.#host.watchEngine(hear));
    return () => {
      clearTimeout(timer);
      stop();
    };
  }
}

/** The engine of the window that a part belongs to. */
export const [engineOf, setEngine] = createContext<Engine>();
