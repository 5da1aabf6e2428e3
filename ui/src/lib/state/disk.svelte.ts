/** The space that the machine's disk takes on this computer, and what of it comes back. */
import type { DiskUse, Failure, Host, Reclaimed } from "../host";
import { failureOf } from "./failure";

export class Disk {
  /** Null until the machine has said it, and while it does not. */
  use = $state.raw<DiskUse | null>(null);
  /** What the last reclaiming came to. */
  reclaimed = $state.raw<Reclaimed | null>(null);
  busy = $state(false);
  failure = $state.raw<Failure | null>(null);
  /** What may come back, at most: the file system's own tables do not. */
  readonly most = $derived(this.use === null ? null : Math.max(0, this.use.onHost - this.use.used));
  readonly #host: Pick<Host, "diskUse" | "reclaimDisk">;

  constructor(host: Pick<Host, "diskUse" | "reclaimDisk">) {
    this.#host = host;
  }

  /** Asks what is used; a machine that does not answer is not asked for more. */
  async look(): Promise<void> {
    try {
      this.use = await this.#host.diskUse();
    } catch {
      this.use = null;
    }
  }

  /** One at a time. */
  async reclaim(): Promise<void> {
    if (this.busy) return;
    [this.busy, this.failure, this.reclaimed] = [true, null, null];
    try {
      this.reclaimed = await this.#host.reclaimDisk();
    } catch (error) {
      this.failure = failureOf(error);
    } finally {
      this.busy = false;
    }
    await this.look();
  }
}
