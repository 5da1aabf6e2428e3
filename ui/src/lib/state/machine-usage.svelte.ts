/**
 * What the machine uses of its processors, memory and disk, and what of the disk comes back to this computer. That is a
 * task, which nobody can cancel: the guest does it by one call of its kernel, whoever waits for it.
 */
import { ofMachine } from "../command-line";
import { bytes } from "../format";
import type { CpuTime, Failure, Host, Job, MachineUsage, MachineView, Reclaimed, Stop } from "../host";
import { say } from "../words/index.svelte";
import type { Task, Tasks } from "./tasks.svelte";

type UsageHost = Pick<Host, "machineUsage" | "reclaimDisk">;

/** While it is looked at, it is asked again so many milliseconds after it answered. */
const EVERY = 5000;
/** The second time it is asked sooner, since only two readings tell how busy its processors are. */
const FIRST = 1000;

export class Usage {
  /** Null until the machine has said it, and while it does not. */
  now = $state.raw<MachineUsage | null>(null);
  /** How much of its processors' time they worked between the last two readings, from 0 to 1; null until there are two. */
  load = $state.raw<number | null>(null);
  /** What the last reclaiming came to, until a person who has seen it leaves. */
  reclaimed = $state.raw<Reclaimed | null>(null);
  failure = $state.raw<Failure | null>(null);
  /** What its processors had done at the last reading. */
  #worked: CpuTime | null = null;
  #task = $state.raw<Task | null>(null);
  readonly busy = $derived(this.#task?.state === "running");
  /** What may come back, at most: the file system's own tables do not. */
  readonly most = $derived(this.now === null ? null : Math.max(0, this.now.diskOnHost - this.now.diskUsed));
  readonly #host: UsageHost;
  readonly #tasks: Tasks;

  constructor(host: UsageHost, tasks: Tasks) {
    this.#host = host;
    this.#tasks = tasks;
  }

  /** Asks what is used; a machine that does not answer is not asked for more. */
  async look(): Promise<void> {
    try {
      const now = await this.#host.machineUsage();
      this.load = loadBetween(this.#worked, now.cpu);
      [this.now, this.#worked] = [now, now.cpu];
    } catch {
      [this.now, this.load, this.#worked] = [null, null, null];
    }
  }

  /** Asks now and again until what it returns is called; one question at a time, since a busy guest may be slow. */
  follow(): Stop {
    let wanted = true;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const ask = async (pause: number): Promise<void> => {
      await this.look();
      if (wanted) timer = setTimeout(() => void ask(EVERY), pause);
    };
    // What was read when somebody looked before would tell of all the time since, or is of another start.
    [this.load, this.#worked] = [null, null];
    void ask(FIRST);
    return () => {
      wanted = false;
      clearTimeout(timer);
      // It says what the disk takes now, which is not so for ever.
      [this.reclaimed, this.failure] = [null, null];
    };
  }

  /** One at a time. */
  async reclaim(view: MachineView): Promise<void> {
    if (this.busy) return;
    [this.failure, this.reclaimed] = [null, null];
    const about = {
      title: say("reclaimOf", { name: view.name }),
      command: ofMachine("cove machine reclaim", view),
      cancel: { can: false, note: say("reclaimNotCancelled") },
      goesOn: true,
    };
    const { task, ended } = this.#tasks.begin(about, (job) => this.#giveBack(job));
    this.#task = task;
    const outcome = await ended;
    if (outcome.kind === "done") this.reclaimed = outcome.value;
    else if (outcome.kind === "failed") this.failure = outcome.failure;
    await this.look();
  }

  async #giveBack(job: Job): Promise<Reclaimed> {
    job.tell({ kind: "whole", message: say("reclaimStage"), fraction: null });
    const came = await this.#host.reclaimDisk();
    job.tell({ kind: "line", text: reclaimedWords(came) });
    return came;
  }
}

/** Null where two readings do not tell, such as those of two starts. */
function loadBetween(before: CpuTime | null, now: CpuTime | null): number | null {
  if (before === null || now === null || now.all <= before.all || now.busy < before.busy) return null;
  return Math.min(1, (now.busy - before.busy) / (now.all - before.all));
}

/** What came of it, in words. */
export function reclaimedWords({ before, after }: Reclaimed): string {
  return say("reclaimed", { before: bytes(before), after: bytes(after) });
}
