/** Whether the window's program opens with the session, as the desktop has it. */
import type { Failure, Host } from "../host";
import { failureOf } from "./failure";

export class Autostart {
  /** Null until it is known, and where the desktop has no such thing. */
  on = $state<boolean | null>(null);
  failure = $state.raw<Failure | null>(null);
  readonly #host: Pick<Host, "autostart" | "setAutostart">;

  constructor(host: Pick<Host, "autostart" | "setAutostart">) {
    this.#host = host;
  }

  async read(): Promise<void> {
    try {
      this.on = await this.#host.autostart();
    } catch (error) {
      [this.on, this.failure] = [false, failureOf(error)];
    }
  }

  /** Shows what was asked for at once, and then what came of it. */
  async set(on: boolean): Promise<void> {
    [this.on, this.failure] = [on, null];
    try {
      await this.#host.setAutostart(on);
    } catch (error) {
      this.failure = failureOf(error);
    }
    const failure = this.failure;
    await this.read();
    this.failure = failure ?? this.failure;
  }
}
