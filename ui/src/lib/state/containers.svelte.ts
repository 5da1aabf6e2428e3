/** What the containers' screen shows: rows, filter, selection. The rows belong to the host; the rest belongs here. */
import { untrack } from "svelte";
import { SvelteMap, SvelteSet } from "svelte/reactivity";
import { quote } from "../command-line";
import { type ContainerAction, type ContainerRow, type Failure, type Host, HostError, type Job, type Stop, type Usage } from "../host";
import { say } from "../words/index.svelte";
import { failureOf } from "./failure";
import { Files } from "./files.svelte";
import type { Tasks } from "./tasks.svelte";

export type Filter = "all" | "running" | "stopped";
/** How many readings of a container are kept: one comes about every second. */
export const HISTORY = 120;
/** How many of them the list has room for. */
export const SPARK = 30;
/** To so many of several something is done at once: the engine has other work, and what waits can still be left alone. */
const AT_ONCE = 4;

export interface Group {
  /** The compose project; null for containers without one. */
  project: string | null;
  rows: ContainerRow[];
}

/** Rows that the words and the filter let through; each word must be in the name, the image or the project. */
export function matching(rows: readonly ContainerRow[], search: string, filter: Filter): ContainerRow[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter((row) => {
    const alive = row.state === "running" || row.state === "paused" || row.state === "restarting";
    if (filter !== "all" && alive !== (filter === "running")) return false;
    const text = `${row.name} ${row.image} ${row.project ?? ""}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

/** Projects by name, then what belongs to none. Within a group the rows keep a fixed order, so that none jumps. */
export function grouped(rows: readonly ContainerRow[]): Group[] {
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- it does not outlive this call
  const groups = new Map<string | null, ContainerRow[]>();
  for (const row of rows) {
    const group = groups.get(row.project);
    if (group) group.push(row);
    else groups.set(row.project, [row]);
  }
  return [...groups]
    .map(([project, members]) => ({ project, rows: members.sort((a, b) => a.name.localeCompare(b.name)) }))
    .sort((a, b) => {
      if (a.project === null || b.project === null) return Number(a.project === null) - Number(b.project === null);
      return a.project.localeCompare(b.project);
    });
}

/** The actions that make sense for a container in this state. */
export function actionsFor(row: ContainerRow): ContainerAction[] {
  switch (row.state) {
    case "running":
    case "restarting":
      return ["stop", "restart", "pause", "kill", "remove"];
    case "paused":
      return ["unpause", "stop", "kill", "remove"];
    case "created":
    case "exited":
      return ["start", "remove"];
    case "dead":
      return ["remove"];
    case "removing":
      return [];
  }
}

export class Containers {
  /** Null until the engine has answered. */
  rows = $state.raw<ContainerRow[] | null>(null);
  search = $state("");
  filter = $state<Filter>("all");
  readonly selected = new SvelteSet<string>();
  /** Ids with an action under way. */
  readonly busy = new SvelteSet<string>();
  readonly usage = new SvelteMap<string, Usage[]>();
  failure = $state.raw<Failure | null>(null);
  readonly visible = $derived(matching(this.rows ?? [], this.search, this.filter));
  readonly groups = $derived(grouped(this.visible));
  readonly #host: Host;
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- nobody looks at it but by key
  readonly #files = new Map<string, Files>();

  constructor(
    host: Host,
    readonly tasks: Tasks,
  ) {
    this.#host = host;
  }

  follow(): Stop {
    // An effect that begins this must not depend on what a host tells at once: it would begin anew with each reading.
    const stops = untrack(() => [
      this.#host.watchContainers((rows) => this.#take(rows)),
      this.#host.watchUsage((usage) => this.#measure(usage)),
    ]);
    return () => stops.forEach((stop) => stop());
  }

  /** A container's files. What is typed there stays while a person looks elsewhere. */
  filesOf(id: string): Files {
    const files = this.#files.get(id) ?? new Files(this.#host, this.tasks, { kind: "container", id });
    this.#files.set(id, files);
    return files;
  }

  row(id: string): ContainerRow | undefined {
    return this.rows?.find((row) => row.id === id);
  }

  toggle(id: string): void {
    if (!this.selected.delete(id)) this.selected.add(id);
  }

  /** Selects all that the search and the filter let through. */
  selectVisible(): void {
    for (const row of this.visible) this.selected.add(row.id);
  }

  /** Does it to all of `ids` for which it makes sense. For several it is a task, which can be watched and cancelled. */
  async act(action: ContainerAction, ids: Iterable<string>): Promise<void> {
    this.failure = null;
    const rows = [...ids].flatMap((id) => this.#ready(action, id) ?? []);
    const [row, second] = rows;
    if (row === undefined) return;
    if (second !== undefined) {
      const words = action === "remove" ? "rm --force --volumes" : action;
      const command = `docker ${words} ${rows.map(({ name }) => quote(name)).join(" ")}`;
      const title = say("bulkOf", { action: say(action), count: rows.length });
      await this.tasks.begin({ title, command }, (job) => this.#actOnEach(action, rows, job)).ended;
      return;
    }
    try {
      await this.#actOn(action, row);
    } catch (error) {
      this.failure = failureOf(error);
    }
  }

  async openPort(port: number): Promise<void> {
    this.failure = null;
    try {
      await this.#host.openPort(port);
    } catch (error) {
      this.failure = failureOf(error);
    }
  }

  /** The container, if the action makes sense for it and nothing else is under way. */
  #ready(action: ContainerAction, id: string): ContainerRow | null {
    const row = this.row(id);
    return row !== undefined && actionsFor(row).includes(action) && !this.busy.has(id) ? row : null;
  }

  async #actOn(action: ContainerAction, { id }: ContainerRow): Promise<void> {
    this.busy.add(id);
    try {
      await this.#host.act(action, id);
    } finally {
      this.busy.delete(id);
    }
  }

  /** Goes on after one that failed. Cancelled, it begins with no other, and ends with what is under way. */
  async #actOnEach(action: ContainerAction, rows: readonly ContainerRow[], job: Job): Promise<void> {
    const waiting = [...rows];
    const failures: Failure[] = [];
    let [ended, left] = [0, 0];
    const tell = ({ id, name }: ContainerRow, note: string) => job.tell({ kind: "part", id, label: name, note, fraction: null });
    for (const row of waiting) tell(row, say("partWaiting"));
    job.signal.addEventListener("abort", () => {
      for (const row of waiting.splice(0)) {
        left += 1;
        tell(row, say("task_cancelled"));
      }
    });
    const work = async () => {
      for (let row = waiting.shift(); row !== undefined; row = waiting.shift()) {
        tell(row, say("partUnderWay"));
        // It may have gone, or come into another state, while it waited.
        const ready = this.#ready(action, row.id) !== null;
        try {
          if (ready) await this.#actOn(action, row);
          tell(row, say(ready ? "task_done" : "partSkipped"));
        } catch (error) {
          const failure = failureOf(error);
          failures.push(failure);
          tell(row, `${say("task_failed")}: ${failure.message}`);
        }
        ended += 1;
        job.tell({ kind: "whole", message: "", fraction: ended / rows.length });
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    if (left > 0) job.signal.throwIfAborted();
    const [first] = failures;
    if (first === undefined) return;
    const message = `${say("someFailed", { failed: failures.length, count: rows.length })} ${first.message}`;
    throw new HostError(message, first.hint, first.registry ?? null, first.kind ?? null);
  }

  #take(rows: ContainerRow[]): void {
    this.rows = rows;
    // eslint-disable-next-line svelte/prefer-svelte-reactivity -- it does not outlive this call
    const alive = new Set(rows.map((row) => row.id));
    for (const id of this.selected) if (!alive.has(id)) this.selected.delete(id);
    for (const id of this.usage.keys()) if (!alive.has(id)) this.usage.delete(id);
    for (const id of this.#files.keys()) if (!alive.has(id)) this.#files.delete(id);
  }

  #measure(usage: ReadonlyMap<string, Usage>): void {
    for (const [id, reading] of usage) {
      this.usage.set(id, [...(this.usage.get(id) ?? []).slice(1 - HISTORY), reading]);
    }
  }
}

/** What a count grows by in a second, between each reading and the one before it. A container that started anew counts from nothing. */
export function rate(readings: readonly Usage[], count: (reading: Usage) => number): number[] {
  return readings.slice(1).map((reading, index) => {
    const before = readings[index];
    const seconds = before === undefined ? 0 : (reading.atMs - before.atMs) / 1000;
    return before === undefined || seconds <= 0 ? 0 : Math.max(0, count(reading) - count(before)) / seconds;
  });
}
