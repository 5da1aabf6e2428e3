/** What the machine uses of its memory and disk, and what of the disk comes back to this computer. */
import type { Failure, Host, MachineUsage, Reclaimed, Stop } from "../host";
import { failureOf } from "./failure";

/** While it is looked at, it is asked again so many milliseconds after it answered. */
const EVERY = 5000;

export class Usage {
  /** Null until the machine has said it, and while it does not. */
  now = $state.raw<MachineUsage | null>(null);
  /** What the last reclaiming came to. */
  reclaimed = $state.raw<Reclaimed | null>(null);
  busy = $state(false);
  failure = $state.raw<Failure | null>(null);
  /** What may come back, at most: the file system's own tables do not. */
  readonly most = $derived(this.now === null ? null : Math.max(0, this.now.diskOnHost - this.now.diskUsed));
  readonly #host: Pick<Host, "machineUsage" | "reclaimDisk">;

  constructor(host: Pick<Host, "machineUsage" | "reclaimDisk">) {
    this.#host = host;
  }

  /** Asks what is used; a machine that does not answer is not asked for more. */
  async look(): Promise<void> {
    try {
      this.now = await this.#host.machineUsage();
    } catch {
      this.now = null;
    }
  }

  /** Asks now and again until what it returns is called; one question at a time, since a busy guest may be slow. */
  follow(): Stop {
    let wanted = true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ask = async (): Promise<void> => {
      await this.look();
      if (wanted) timer = setTimeout(() => void ask(), EVERY);
    };
    void ask();
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
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
