/** A list of things of the engine: read when it is shown, read again when the engine says that something changed. */
import { SvelteSet } from "svelte/reactivity";
import type { Failure, Host, Job, Stop, ThingKind } from "../host";
import { doToEach } from "./bulk";
import { failureOf } from "./failure";
import { type About, engineGoesOn, type Tasks } from "./tasks.svelte";

/** How long after a reading that failed the engine is asked again, unless it tells of a change before: milliseconds. */
const AGAIN = 3000;

/** What is done to rows as a task. */
export interface Telling<Row> {
  tasks: Tasks;
  about: About;
  name: (row: Row) => string;
}

/** What a column is sorted by. */
export type Compare<Row> = (one: Row, other: Row) => number;

export interface Source<Row> {
  read: () => Promise<Row[]>;
  key: (row: Row) => string;
  /** What the search looks at. */
  text: (row: Row) => string;
  /** Changes of these kinds change the list; none: it is known without the engine. */
  kinds: readonly ThingKind[];
}

export class Listing<Row> {
  /** Null until the engine has answered. */
  rows = $state.raw<Row[] | null>(null);
  search = $state("");
  /** What else is asked of a row. */
  filter = $state.raw<((row: Row) => boolean) | null>(null);
  /** The column that it is sorted by, and whether the last comes first; null for the engine's own order. */
  order = $state.raw<{ column: number; down: boolean } | null>(null);
  /** Why the engine does not tell the list; what was told before stays. */
  unread = $state.raw<Failure | null>(null);
  /** Why something that was done to rows did not work. */
  failure = $state.raw<Failure | null>(null);
  readonly selected = new SvelteSet<string>();
  /** Keys of rows with something under way. */
  readonly busy = new SvelteSet<string>();
  /** Counts the readings, for what is read along with the list. */
  readings = $state(0);
  readonly visible = $derived.by(() => {
    const words = this.search.toLowerCase().split(/\s+/).filter(Boolean);
    return (this.rows ?? []).filter((row) => {
      const text = this.source.text(row).toLowerCase();
      return (this.filter === null || this.filter(row)) && words.every((word) => text.includes(word));
    });
  });
  readonly chosen = $derived((this.rows ?? []).filter((row) => this.selected.has(this.source.key(row))));
  /** A person may leave the list and come back while it is read. */
  #followers = 0;
  #reading = false;
  #again = false;
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly host: Host,
    readonly source: Source<Row>,
  ) {}

  follow(): Stop {
    this.#followers += 1;
    void this.refresh();
    const stops = [
      this.host.watchChanges((kinds) => {
        if (kinds.some((kind) => this.source.kinds.includes(kind))) void this.refresh();
      }),
    ];
    if (this.ofEngine) stops.push(this.#followEngine());
    return () => {
      this.#followers -= 1;
      if (this.#followers === 0) clearTimeout(this.#retry);
      for (const stop of stops) stop();
    };
  }

  /** What was missed of an engine that was lost is not said of one that answers again: the list is read at once. */
  #followEngine(): Stop {
    let lost = false;
    return this.host.watchEngine((why) => {
      const found = lost && why === null;
      lost = why !== null;
      if (!found || this.unread === null) return;
      this.unread = null;
      void this.refresh();
    });
  }

  /** Whether it is the engine that tells it. */
  get ofEngine(): boolean {
    return this.source.kinds.length > 0;
  }

  row(key: string | null): Row | undefined {
    return this.rows?.find((row) => this.source.key(row) === key);
  }

  toggle(key: string): void {
    if (!this.selected.delete(key)) this.selected.add(key);
  }

  /** Sorts by a column; once more the other way round, and then not at all. */
  sortBy(column: number): void {
    const now = this.order?.column === column ? this.order : null;
    this.order = now === null ? { column, down: false } : now.down ? null : { column, down: true };
  }

  /** The rows that are shown, in the order that was asked for. */
  sorted(compares: readonly (Compare<Row> | null)[]): Row[] {
    const compare = this.order === null ? null : (compares[this.order.column] ?? null);
    if (compare === null) return this.visible;
    const sign = this.order?.down === true ? -1 : 1;
    return [...this.visible].sort((one, other) => sign * compare(one, other));
  }

  /** Selects all that is shown, or nothing where all of it is selected. */
  toggleAll(): void {
    const keys = this.visible.map((row) => this.source.key(row));
    const all = keys.every((key) => this.selected.has(key));
    for (const key of keys) {
      if (all) this.selected.delete(key);
      else this.selected.add(key);
    }
  }

  /**
   * Does it to each, and goes on after one that failed. Says whether all went well. With `telling` it is a task, where it
   * is one row alone once it takes longer than a moment; what no task tells is told here.
   */
  async each(rows: readonly Row[], act: (row: Row) => Promise<unknown>, telling?: Telling<Row>): Promise<boolean> {
    this.failure = null;
    const name = telling?.name ?? this.source.key;
    const work = (job: Job) => doToEach(rows, { id: this.source.key, name, act: (row) => this.#actOn(row, act) }, job);
    if (telling === undefined) {
      try {
        await work({ signal: new AbortController().signal, tell: () => undefined });
      } catch (error) {
        this.failure = failureOf(error);
      }
      return this.failure === null;
    }
    const { tasks, about } = telling;
    const { task, ended } = rows.length > 1 ? tasks.begin(about, work) : tasks.beginLate({ ...about, ...engineGoesOn() }, work);
    const outcome = await ended;
    if (outcome.kind === "failed" && !tasks.list.includes(task)) this.failure = outcome.failure;
    return outcome.kind === "done";
  }

  async #actOn(row: Row, act: (row: Row) => Promise<unknown>): Promise<boolean> {
    const key = this.source.key(row);
    this.busy.add(key);
    try {
      await act(row);
      this.selected.delete(key);
      return true;
    } finally {
      this.busy.delete(key);
    }
  }

  /** Reads the list. One reading at a time: of two, the older might come last. */
  async refresh(): Promise<void> {
    this.#again = this.#reading;
    if (this.#reading) return;
    this.#reading = true;
    try {
      const rows = await this.source.read();
      if (this.#followers === 0) return;
      this.rows = rows;
      this.unread = null;
      this.readings += 1;
      // eslint-disable-next-line svelte/prefer-svelte-reactivity -- it does not outlive this call
      const alive = new Set(rows.map((row) => this.source.key(row)));
      for (const key of this.selected) if (!alive.has(key)) this.selected.delete(key);
    } catch (error) {
      // What is read again at once is not missed yet.
      if (this.#followers > 0 && !this.#again) this.#miss(error);
    } finally {
      this.#reading = false;
      if (this.#again && this.#followers > 0) void this.refresh();
    }
  }

  /** What else tells a list, such as a keyring, is not asked again and again. */
  #miss(error: unknown): void {
    this.unread = failureOf(error);
    clearTimeout(this.#retry);
    if (this.ofEngine) this.#retry = setTimeout(() => void this.refresh(), AGAIN);
  }
}

/** Some names of many: `a, b, c, d, e + 7`. */
export function some(names: readonly string[]): string {
  return names.length > 5 ? `${names.slice(0, 5).join(", ")} + ${names.length - 5}` : names.join(", ");
}
