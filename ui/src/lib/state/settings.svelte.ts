/**
 * The settings as they are typed: drafts over the daemon's values, tried before they are applied.
 *
 *   drafts ──review──▶ what the file would become, by the daemon ──apply──▶ written, read again
 */
import { SvelteMap } from "svelte/reactivity";
import type { Failure, Host, SettingRow, SettingsDiff, SettingsView } from "../host";
import { failureOf } from "./failure";

/** Keys that have a list of their own. */
const ELSEWHERE = new Set(["shares"]);

export interface Section {
  name: string;
  rows: SettingRow[];
}

/** By what stands in front of the first dot, in the order of the file. */
export function sections(rows: readonly SettingRow[]): Section[] {
  const found: Section[] = [];
  for (const row of rows) {
    if (ELSEWHERE.has(row.key)) continue;
    const name = row.key.split(".")[0] ?? row.key;
    const section = found.find((section) => section.name === name);
    if (section === undefined) found.push({ name, rows: [row] });
    else section.rows.push(row);
  }
  return found;
}

export class SettingsForm {
  view = $state.raw<SettingsView | null>(null);
  /** What was typed, by key; null puts a key back to its default. */
  readonly drafts = new SvelteMap<string, string | null>();
  /** What the drafts come to, once that was asked for; nothing once they are others. */
  diff = $state.raw<SettingsDiff | null>(null);
  /** Machines that wait for a restart since the last change. */
  restartNeeded = $state.raw<readonly string[]>([]);
  failure = $state.raw<Failure | null>(null);
  busy = $state(false);
  readonly sections = $derived(sections(this.view?.rows ?? []));
  readonly #host: Host;
  /** The drafts that `diff` is about. */
  #shown: Record<string, string | null> = {};
  #typings = 0;

  constructor(host: Host) {
    this.#host = host;
  }

  value(row: SettingRow): string {
    const draft = this.drafts.get(row.key);
    return draft === undefined ? row.value : (draft ?? row.default);
  }

  type(row: SettingRow, value: string): void {
    this.#forget();
    if (value === row.value) this.drafts.delete(row.key);
    // An empty field asks for nothing of one's own.
    else this.drafts.set(row.key, value.trim() === "" ? null : value);
  }

  reset(row: SettingRow): void {
    this.#forget();
    if (row.set) this.drafts.set(row.key, null);
    else this.drafts.delete(row.key);
  }

  discard(): void {
    this.drafts.clear();
    this.#forget();
    this.failure = null;
  }

  read(): Promise<void> {
    return this.#attempt(async () => {
      this.view = await this.#host.settings();
    });
  }

  review(): Promise<void> {
    return this.#attempt(async () => {
      const [values, typings] = [Object.fromEntries(this.drafts), this.#typings];
      const diff = await this.#host.changeSettings(values, null);
      // What was typed meanwhile is not in it.
      if (typings === this.#typings) [this.diff, this.#shown] = [diff, values];
    });
  }

  /** Applies what is shown, and nothing else: if the file is another by now, it is to be reviewed once more. */
  async apply(): Promise<void> {
    const [diff, values] = [this.diff, this.#shown];
    if (diff === null) return;
    await this.#attempt(async () => {
      const done = await this.#host.changeSettings(values, diff.mark);
      for (const [key, value] of Object.entries(values)) if (this.drafts.get(key) === value) this.drafts.delete(key);
      this.restartNeeded = done.restartNeeded;
    });
    this.#forget();
    const failure = this.failure;
    await this.read();
    this.failure ??= failure;
  }

  /** A machine that stopped heeds what is written with its next start. */
  stopped(name: string): void {
    this.restartNeeded = this.restartNeeded.filter((other) => other !== name);
  }

  #forget(): void {
    this.#typings += 1;
    this.diff = null;
  }

  async #attempt(what: () => Promise<void>): Promise<void> {
    [this.busy, this.failure] = [true, null];
    try {
      await what();
    } catch (error) {
      this.failure = failureOf(error);
    } finally {
      this.busy = false;
    }
  }
}
