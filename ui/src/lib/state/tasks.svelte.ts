/**
 * Long actions: a pull, a build, a start of the machine. They belong to the window and not to a screen, so that they go on when it
 * is left.
 *
 *            begin                        the host answers
 *   (none) ────────▶ running ──┬─────────────────────────────▶ done, or failed with why
 *                              └── cancel ──▶ cancelled
 *
 * What is done at once and can be taken back is told as one that is done, which its toast and the drawer undo.
 */
import { SvelteMap } from "svelte/reactivity";
import { untrack } from "svelte";
import type { BuildStep, Failure, Job, Stop, TaskStep } from "../host";
import { say } from "../words/index.svelte";
import { seconds } from "../format";
import { failureOf } from "./failure";

/** Ended tasks that are kept. */
const KEPT = 20;
/** Lines of a task that are kept. */
const LINES = 5000;
/** What takes longer than this many milliseconds is watched. */
export const MOMENT = 1000;
/** Characters of all these lines. */
export const MOST_WRITTEN = 16 * 1024 * 1024;

export interface About {
  /** Words and object: `Pull nginx:alpine`. */
  title: string;
  /** What does the same in a terminal; empty where no one command does. */
  command: string;
  /** What takes it back once it is done, where that can be had. */
  back?: { command: string; work: () => Promise<unknown> };
  /** Whether it can be cancelled, and what a person should know of that; absent where it simply can. */
  cancel?: { can: boolean; note: string };
  /** Whether the daemon goes on with it when the page goes, which then only hears no more of it. */
  goesOn?: boolean;
}

/** Of what the engine does by one request, and goes on with whoever has asked for it. */
export function engineGoesOn(): Pick<About, "cancel" | "goesOn"> {
  return { cancel: { can: false, note: say("engineGoesOn") }, goesOn: true };
}

export interface Part {
  label: string;
  note: string;
  fraction: number | null;
}

export type Outcome<T> = { kind: "done"; value: T } | { kind: "failed"; failure: Failure } | { kind: "cancelled" };

export class Task {
  state = $state<"running" | "done" | "failed" | "cancelled">("running");
  message = $state("");
  fraction = $state<number | null>(null);
  failure = $state.raw<Failure | null>(null);
  /** By the host's name for each, in the order in which they came. */
  readonly parts = new SvelteMap<string, Part>();
  /** The steps of a build, by their numbers. */
  readonly steps = new SvelteMap<number, BuildStep>();
  lines = $state.raw<readonly string[]>([]);
  /** Whether a person has been told how it ended. */
  seen = $state(false);
  /** Whether it has been taken back, or is about to be. */
  undone = $state(false);
  /** How many characters the lines have. */
  #written = 0;
  readonly #abort = new AbortController();
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- nobody looks at it
  readonly #watchers = new Set<(lines: readonly string[]) => void>();

  constructor(
    readonly id: number,
    readonly about: About,
  ) {}

  get undoable(): boolean {
    return this.state === "done" && this.about.back !== undefined && !this.undone;
  }

  get cancellable(): boolean {
    return this.state === "running" && this.about.cancel?.can !== false;
  }

  /** Asks the host to end it, where that can be had. */
  cancel(): void {
    if (this.cancellable) this.#abort.abort();
  }

  /** Tells the lines that are kept, at once, and then each that comes. */
  watchLines(seen: (lines: readonly string[]) => void): Stop {
    untrack(() => seen(this.lines));
    this.#watchers.add(seen);
    return () => this.#watchers.delete(seen);
  }

  async follow<T>(work: (job: Job) => Promise<T>): Promise<Outcome<T>> {
    try {
      const value = await work({ signal: this.#abort.signal, tell: (step) => this.#take(step) });
      this.state = "done";
      return { kind: "done", value };
    } catch (error) {
      if (this.#abort.signal.aborted) {
        this.state = "cancelled";
        return { kind: "cancelled" };
      }
      this.failure = failureOf(error);
      this.state = "failed";
      return { kind: "failed", failure: this.failure };
    }
  }

  #take(step: TaskStep): void {
    if (step.kind === "whole") {
      [this.message, this.fraction] = [step.message, step.fraction];
    } else if (step.kind === "part") {
      this.parts.set(step.id, { label: step.label, note: step.note, fraction: step.fraction });
    } else if (step.kind === "build") {
      const { number, name, state, tookMs, note, fraction } = step.step;
      this.steps.set(number, step.step);
      const took = tookMs === null || state === "cached" ? "" : ` · ${seconds(tookMs)}`;
      this.parts.set(String(number), { label: name, note: note || `${say(`step_${state}`)}${took}`, fraction });
    } else {
      this.#keep(step.text);
      for (const seen of this.#watchers) seen([step.text]);
    }
  }

  /** Keeps a line, and lets go of the oldest where lines or their characters are too many. */
  #keep(text: string): void {
    const before = this.lines;
    this.#written += text.length;
    let gone = 0;
    while (gone < before.length && (before.length - gone >= LINES || this.#written > MOST_WRITTEN)) {
      this.#written -= before[gone]?.length ?? 0;
      gone += 1;
    }
    this.lines = [...before.slice(gone), text];
  }
}

export class Tasks {
  /** The newest first. */
  list = $state.raw<readonly Task[]>([]);
  /** Whether the drawer is open, and on which task. */
  open = $state(false);
  chosen = $state<number | null>(null);
  readonly running = $derived(this.list.filter((task) => task.state === "running"));
  /** Those that end with the page. */
  readonly bound = $derived(this.running.filter((task) => task.about.goesOn !== true));
  /** Those that ended while nobody watched, and nobody has heard of yet. */
  readonly unseen = $derived(this.open ? [] : this.list.filter((task) => task.state !== "running" && !task.seen));
  readonly shown = $derived(this.list.find((task) => task.id === this.chosen) ?? this.list[0] ?? null);
  #next = 1;

  /** Begins a task. What it came to is its promise's value, which is never refused. */
  begin<T>(about: About, work: (job: Job) => Promise<T>): { task: Task; ended: Promise<Outcome<T>> } {
    const task = this.#made(about);
    this.#enter(task);
    return { task, ended: this.#follow(task, work) };
  }

  /**
   * Begins what most times is done in a moment: it is among the tasks once it takes longer. Until then its failure is for
   * who began it to tell.
   */
  beginLate<T>(about: About, work: (job: Job) => Promise<T>): { task: Task; ended: Promise<Outcome<T>> } {
    const task = this.#made(about);
    const timer = setTimeout(() => this.#enter(task), MOMENT);
    return { task, ended: this.#follow(task, work).finally(() => clearTimeout(timer)) };
  }

  /** Tells of what has been done already, such as what can be taken back. */
  done(about: About): void {
    this.begin(about, () => Promise.resolve());
  }

  /** Takes back what a task has done. Where that fails it can be tried again. */
  async undo(task: Task): Promise<void> {
    const back = task.about.back;
    if (back === undefined || !task.undoable) return;
    [task.undone, task.seen] = [true, true];
    const about = { title: say("undoOf", { title: task.about.title }), command: back.command };
    const outcome = await this.begin(about, back.work).ended;
    task.undone = outcome.kind === "done";
  }

  show(task: Task): void {
    task.seen = true;
    this.chosen = task.id;
    this.open = true;
  }

  toggle(): void {
    this.open = !this.open;
    if (this.open) for (const task of this.list) if (task.state !== "running") task.seen = true;
  }

  /** What did not happen at all, such as a backup to a file that nobody chose. */
  forget(task: Task): void {
    this.list = this.list.filter((other) => other !== task);
  }

  /** Forgets the ones that have ended. */
  clear(): void {
    this.list = this.running;
  }

  #made(about: About): Task {
    const task = new Task(this.#next, about);
    this.#next += 1;
    return task;
  }

  #enter(task: Task): void {
    let kept = 0;
    this.list = [task, ...this.list.filter((other) => other.state === "running" || (kept += 1) < KEPT)];
    this.chosen = task.id;
  }

  #follow<T>(task: Task, work: (job: Job) => Promise<T>): Promise<Outcome<T>> {
    return task.follow(work).then((outcome) => {
      // Who cancelled it knows.
      if (outcome.kind === "cancelled" || this.open) task.seen = true;
      return outcome;
    });
  }
}
