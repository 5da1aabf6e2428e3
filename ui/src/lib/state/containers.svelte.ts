/** What the containers' screen shows: rows, filter, selection. The rows belong to the host; the rest belongs here. */
import { untrack } from "svelte";
import { SvelteMap, SvelteSet } from "svelte/reactivity";
import { quote } from "../command-line";
import type { ContainerAction, ContainerRow, Failure, Host, Stop, Usage } from "../host";
import { say } from "../words/index.svelte";
import { doToEach } from "./bulk";
import { failureOf } from "./failure";
import { Files } from "./files.svelte";
import { engineGoesOn, type Tasks } from "./tasks.svelte";

export type Filter = "all" | "running" | "stopped";
/** How many readings of a container are kept: one comes about every second. */
export const HISTORY = 120;
/** Readings that are closer than so many milliseconds are one that was told twice, unless time was set back by a minute. */
const TWICE = 500;
const SET_BACK = -60_000;
/** How many of them the list has room for. */
export const SPARK = 30;

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

/** What the rows of a group are sorted by. Names keep a fixed order, so that none jumps. */
export const ORDERS = ["name", "age", "cpu", "memory"] as const;
export type Order = (typeof ORDERS)[number];

/** Projects by name, then what belongs to none; within a group what there is more of comes first, and by name otherwise. */
export function grouped(rows: readonly ContainerRow[], weight: (row: ContainerRow) => number = () => 0): Group[] {
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- it does not outlive this call
  const groups = new Map<string | null, ContainerRow[]>();
  for (const row of rows) {
    const group = groups.get(row.project);
    if (group) group.push(row);
    else groups.set(row.project, [row]);
  }
  return [...groups]
    .map(([project, members]) => ({ project, rows: members.sort((a, b) => weight(b) - weight(a) || a.name.localeCompare(b.name)) }))
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

/** What does the same in a terminal. */
export function actionCommand(action: ContainerAction, rows: readonly Pick<ContainerRow, "name">[]): string {
  const words = action === "remove" ? "rm --force --volumes" : action;
  return `docker ${words} ${rows.map(({ name }) => quote(name)).join(" ")}`;
}

export class Containers {
  /** Null until the engine has answered. */
  rows = $state.raw<ContainerRow[] | null>(null);
  search = $state("");
  filter = $state<Filter>("all");
  order = $state<Order>("name");
  /** Whether rows stay where they are: somebody is about to press one. */
  held = $state(false);
  readonly selected = new SvelteSet<string>();
  /** Ids with an action under way. */
  readonly busy = new SvelteSet<string>();
  readonly usage = new SvelteMap<string, Usage[]>();
  failure = $state.raw<Failure | null>(null);
  readonly visible = $derived(matching(this.rows ?? [], this.search, this.filter));
  readonly groups = $derived(grouped(this.visible, (row) => this.#weight(row)));
  readonly #host: Host;
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- nobody looks at it but by key
  readonly #files = new Map<string, Files>();
  /** What rows were sorted by when nobody was about to press one. */
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- nobody looks at it but by key
  readonly #weights = new Map<string, number>();
  /** The order that those are of. */
  #weighed: Order = "name";

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

  /** Has a container measured as long as somebody looks at it: of many, only the newest are without that. */
  measure(id: string): Stop {
    return untrack(() => this.#host.watchUsage((usage) => this.#measure(usage), id));
  }

  /** A container's files. What is typed there stays while a person looks elsewhere. */
  filesOf(id: string): Files {
    const files = this.#files.get(id) ?? new Files(this.#host, this.tasks, { kind: "container", id });
    this.#files.set(id, files);
    return files;
  }

  /** Files that are open with changes that nobody has saved, each behind its container's name. */
  unsaved(): string[] {
    return [...this.#files].flatMap(([id, { file }]) => (file?.changed ? [`${this.row(id)?.name ?? id.slice(0, 12)}:${file.path}`] : []));
  }

  row(id: string): ContainerRow | undefined {
    return this.rows?.find((row) => row.id === id);
  }

  /** What a row is sorted by: the newest first, and what uses most. */
  #weight({ id, createdMs, state }: ContainerRow): number {
    if (this.#weighed !== this.order) {
      this.#weights.clear();
      this.#weighed = this.order;
    }
    if (this.order === "name") return 0;
    if (this.order === "age") return createdMs;
    const kept = this.held ? this.#weights.get(id) : undefined;
    // What has ended uses nothing, whatever was read of it last; what is paused keeps its memory.
    const uses = state === "running" || (state === "paused" && this.order === "memory");
    const weight = kept ?? (uses ? (this.usage.get(id)?.at(-1)?.[this.order] ?? 0) : 0);
    this.#weights.set(id, weight);
    return weight;
  }

  toggle(id: string): void {
    if (!this.selected.delete(id)) this.selected.add(id);
  }

  /** Selects all that the search and the filter let through. */
  selectVisible(): void {
    for (const row of this.visible) this.selected.add(row.id);
  }

  /**
   * Does it to all of `ids` for which it makes sense. For several it is a task, which can be watched and cancelled; for one
   * it is a task once it takes longer than a moment.
   */
  async act(action: ContainerAction, ids: Iterable<string>): Promise<void> {
    this.failure = null;
    const rows = [...ids].flatMap((id) => this.#ready(action, id) ?? []);
    const [row, second] = rows;
    if (row === undefined) return;
    const command = actionCommand(action, rows);
    if (second === undefined) {
      const about = { title: `${say(action)}: ${row.name}`, command, ...engineGoesOn() };
      const { task, ended } = this.tasks.beginLate(about, () => this.#actOn(action, row));
      const outcome = await ended;
      // A task tells it by itself.
      if (outcome.kind === "failed" && !this.tasks.list.includes(task)) this.failure = outcome.failure;
      return;
    }
    const title = say("bulkOf", { action: say(action), count: rows.length });
    const each = {
      id: ({ id }: ContainerRow) => id,
      name: ({ name }: ContainerRow) => name,
      act: async (row: ContainerRow) => {
        // It may have gone, or come into another state, while it waited.
        const ready = this.#ready(action, row.id) !== null;
        if (ready) await this.#actOn(action, row);
        return ready;
      },
    };
    await this.tasks.begin({ title, command }, (job) => doToEach(rows, each, job)).ended;
  }

  /** Makes an image of what a container holds now. */
  commit({ id, name }: ContainerRow, reference: string): void {
    const title = say("commitOf", { name, image: reference });
    const command = `docker commit ${quote(name)} ${quote(reference)}`;
    this.tasks.begin({ title, command, ...engineGoesOn() }, () => this.#host.commitContainer(id, reference, ""));
  }

  async openPort(port: number, address: string | null = null): Promise<void> {
    this.failure = null;
    try {
      await this.#host.openPort(port, address);
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
      const known = this.usage.get(id) ?? [];
      const since = reading.atMs - (known.at(-1)?.atMs ?? -Infinity);
      if (since >= TWICE || since < SET_BACK) this.usage.set(id, [...known.slice(1 - HISTORY), reading]);
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
