/** What is told of one thing. While it is read anew, what was known of it stays: nobody who reads it loses their place. */
import type { Failure } from "../host";
import { failureOf } from "./failure";

export class Known<Value> {
  #of = $state.raw<string | null>(null);
  #value = $state.raw<Value | null>(null);
  #failure = $state.raw<Failure | null>(null);
  #readings = 0;

  /** What was last told of a thing; null before that. */
  value(of: string): Value | null {
    return this.#of === of ? this.#value : null;
  }

  /** Why nothing was told of it the last time. */
  failure(of: string): Failure | null {
    return this.#of === of ? this.#failure : null;
  }

  /** Reads of a thing. Of several readings the last one counts. */
  async read(of: string, reading: Promise<Value>): Promise<void> {
    if (this.#of !== of) [this.#value, this.#failure] = [null, null];
    this.#of = of;
    this.#readings += 1;
    const own = this.#readings;
    try {
      const value = await reading;
      if (own === this.#readings) [this.#value, this.#failure] = [value, null];
    } catch (error) {
      if (own === this.#readings) this.#failure = failureOf(error);
    }
  }
}
