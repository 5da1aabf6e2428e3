/**
 * The machine as the window shows it. Its state belongs to the daemon; here is what was last heard. What the window asks
 * of it is a task, which the daemon goes on with whether the window is there or not:
 *
 *   start, restart ──▶ running ──▶ done, or failed with why
 *                         └── cancel ──▶ stop, a task of its own ──▶ the daemon ends the start: cancelled
 *
 * What others have it do, from the tray or in a terminal, is a task as well, of which only the machine's news tell:
 *
 *   starting, stopping ──▶ running ──▶ done once it runs or has stopped; else failed with why
 */
import { untrack } from "svelte";
import { type Failure, type Host, HostError, type Job, type MachineView, type Step, type Stop } from "../host";
import { ofMachine } from "../command-line";
import { say, type Word } from "../words/index.svelte";
import type { About, Outcome, Task, Tasks } from "./tasks.svelte";

type MachineHost = Pick<Host, "watchMachine" | "startMachine" | "stopMachine" | "restartMachine">;

const HEADLINES: Record<MachineView["phase"], Word> = {
  stopped: "machineStopped",
  starting: "machineStarting",
  running: "machineRunning",
  paused: "machinePaused",
  stopping: "machineStopping",
  failed: "machineFailed",
};

/**
 * What the window asks of the machine: the same for a shell, in words, by its name where that is known, and what
 * cancelling comes to.
 */
const ACTS = {
  start: { command: "cove start", word: "startMachine", named: "startMachineNamed", cancel: { can: true, note: "cancelStopsMachine" } },
  stop: { command: "cove stop", word: "stopMachine", named: "stopMachineNamed", cancel: { can: false, note: "stopNotCancelled" } },
  restart: { command: "cove restart", word: "restartMachine", named: "restartMachineNamed", cancel: { can: true, note: "cancelStopsMachine" } },
} as const satisfies Record<string, { command: string; word: Word; named: Word; cancel: { can: boolean; note: Word } }>;
type Act = keyof typeof ACTS;
/** What was asked of a machine that is in one of these phases. */
const ASKED: Partial<Record<MachineView["phase"], Act>> = { starting: "start", stopping: "stop" };

export class Machine {
  /** Null until the daemon has answered, and while it does not. */
  view = $state.raw<MachineView | null>(null);
  /** Why the daemon does not answer. */
  away = $state.raw<Failure | null>(null);
  /** How often it has come to run, and how often the daemon to answer: what either tells is read anew then. */
  runs = $state(0);
  returns = $state(0);
  /** Why what this window asked for last did not work. */
  failure = $state.raw<Failure | null>(null);
  /** What this window asked for last. */
  #asked = $state.raw<{ act: Act; task: Task; ended: Promise<void> } | null>(null);
  /** How much goes on of what this window asked for. */
  #own = 0;
  /** Follows, from one piece of news to the next, what somebody else asked for. */
  #others: ((view: MachineView | null) => void) | null = null;
  /** How far a start or a stop is that this window asked for; null before anything is told of it. */
  readonly step = $derived.by<Step | null>(() => {
    const task = this.#asked?.task;
    return task?.state === "running" && task.message !== "" ? { message: task.message, fraction: task.fraction } : null;
  });
  readonly phase = $derived(this.view?.phase ?? (this.away === null ? null : "failed"));
  readonly headline = $derived(
    this.view !== null ? say(HEADLINES[this.view.phase]) : this.away !== null ? say("daemonAway") : say("loading"),
  );
  /** Its name and phase, for where there is little room. */
  readonly short = $derived(this.view === null ? this.headline : `${this.view.name} · ${say(this.view.phase)}`);
  readonly #host: MachineHost;
  readonly #tasks: Tasks;

  constructor(host: MachineHost, tasks: Tasks) {
    this.#host = host;
    this.#tasks = tasks;
  }

  follow(): Stop {
    let before: MachineView | null = null;
    return this.#host.watchMachine((news) => {
      const view = news.kind === "seen" ? news.machine : null;
      this.view = view;
      this.away = news.kind === "away" ? news.failure : null;
      // An effect that begins this must not depend on what it counts.
      untrack(() => this.#count(before, view));
      this.#others?.(view);
      if (before !== null && view !== null) this.#notice(before, view);
      before = view;
    });
  }

  #count(before: MachineView | null, now: MachineView | null): void {
    if (before === null && now !== null) this.returns += 1;
    // One that was paused has gone on with what it told.
    if (now?.phase === "running" && before?.phase !== "running" && before?.phase !== "paused") this.runs += 1;
  }

  start(): Promise<void> {
    return this.#ask("start", (job) => this.#unlessStopped(job, (step) => this.#host.startMachine(step)));
  }

  stop(): Promise<void> {
    return this.#ask("stop", (job) => this.#host.stopMachine((step) => tell(job, step)));
  }

  restart(): Promise<void> {
    return this.#ask("restart", (job) => this.#unlessStopped(job, (step) => this.#host.restartMachine(step)));
  }

  /** Begins a task. What is asked for again while it is under way is the same. */
  #ask(act: Act, work: (job: Job) => Promise<void>): Promise<void> {
    const before = this.#asked;
    if (before?.act === act && before.task.state === "running") return before.ended;
    this.failure = null;
    // Counted first: the machine may tell of it before there is a task.
    this.#own += 1;
    const { task, ended } = this.#tasks.begin(this.#about(act), work);
    const asked = { act, task, ended: ended.then((outcome) => this.#take(task, outcome)) };
    this.#asked = asked;
    return asked.ended;
  }

  #about(act: Act): About {
    const { command, word, named, cancel } = ACTS[act];
    return {
      title: this.view === null ? say(word) : say(named, { name: this.view.name }),
      command: ofMachine(command, this.view),
      cancel: { can: cancel.can, note: say(cancel.note) },
      goesOn: true,
    };
  }

  /** Keeps why it failed, unless something else was asked for meanwhile. */
  #take(task: Task, outcome: Outcome<void>): void {
    this.#own -= 1;
    if (outcome.kind === "failed" && this.#asked?.task === task) this.failure = outcome.failure;
  }

  /**
   * Does what brings the machine up. It is cancelled by stopping the machine, which the daemon heeds whatever it does,
   * once it has told that it is about it: a stop that came first would stop nothing.
   */
  async #unlessStopped(job: Job, work: (step: (step: Step) => void) => Promise<void>): Promise<void> {
    let begin: () => void = () => undefined;
    const begun = new Promise<void>((done) => (begin = done));
    const cancel = () => void begun.then(() => this.stop());
    job.signal.addEventListener("abort", cancel, { once: true });
    try {
      await work((step) => {
        begin();
        tell(job, step);
      });
    } finally {
      job.signal.removeEventListener("abort", cancel);
    }
  }

  /**
   * Begins a task where the machine has come to do what nobody asked for here. How it was before has to be known: of a
   * daemon that has just begun, "starting" is to look whether the machine runs.
   */
  #notice(before: MachineView, now: MachineView): void {
    const { name, phase } = now;
    const act = ASKED[phase];
    if (act === undefined || this.#own > 0 || before.name !== name || before.phase === phase) return;
    // Why something failed that was asked for here before is past.
    this.failure = null;
    this.#tasks.begin(this.#about(act), (job) => {
      job.signal.addEventListener("abort", () => void this.stop(), { once: true });
      return new Promise<void>((done, fail) => {
        this.#others = (view) => {
          // With another machine that is shown there comes another page.
          if (view !== null && view.name !== name) return;
          if (view?.phase === phase) return job.tell({ kind: "whole", message: view.stage ?? "", fraction: null });
          this.#others = null;
          const why = view === null ? this.away : whyNot(act, view);
          if (why === null) done();
          else fail(new HostError(why.message, why.hint, why.registry, why.kind));
        };
        this.#others(now);
      });
    });
  }
}

function tell(job: Job, { message, fraction }: Step): void {
  job.tell({ kind: "whole", message, fraction });
}

/** Why a machine that was being started or stopped is not as it was to be; null where it is. */
function whyNot(act: Act, { phase, failure }: MachineView): Failure | null {
  if (phase === "failed") return failure;
  const stopped = phase === "stopping" || phase === "stopped";
  return act === "start" && stopped ? { message: say("startStopped"), hint: "" } : null;
}
