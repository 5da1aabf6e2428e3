/** The diagnostics bundle: shown to a person first, and then saved as it was shown. */
import type { Failure, Host } from "../host";
import { failureOf } from "./failure";

export const BUNDLE_NAME = "cove-diagnostics.txt";

export class Diagnostics {
  /** Null until it has been gathered. */
  text = $state.raw<string | null>(null);
  busy = $state(false);
  failure = $state.raw<Failure | null>(null);
  /** Where the text that is shown was saved. */
  place = $state<string | null>(null);
  readonly #host: Pick<Host, "diagnostics" | "saveText">;

  constructor(host: Pick<Host, "diagnostics" | "saveText">) {
    this.#host = host;
  }

  /** One at a time: each has the doctor look at everything. */
  async gather(): Promise<void> {
    await this.#attempt(async () => {
      [this.text, this.place] = [null, null];
      this.text = await this.#host.diagnostics();
    });
  }

  async save(): Promise<void> {
    const shown = this.text;
    if (shown === null) return;
    await this.#attempt(async () => {
      this.place = (await this.#host.saveText(BUNDLE_NAME, shown)) ?? this.place;
    });
  }

  async #attempt(what: () => Promise<void>): Promise<void> {
    if (this.busy) return;
    [this.busy, this.failure] = [true, null];
    try {
      await what();
    } catch (error) {
      this.failure = failureOf(error);
    } finally {
      this.busy = false;
    }
  }
}
