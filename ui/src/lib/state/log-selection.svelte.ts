/** Which lines of a log are selected, drawn or not: from one to another, by the numbers that they keep. */
import type { Log } from "./logs.svelte";

/** How many pixels a drag scrolls in a frame: the more, the further the pointer is above `top` or below `bottom`. */
export function dragSpeed(pointer: number, top: number, bottom: number): number {
  const past = pointer < top ? pointer - top : Math.max(0, pointer - bottom);
  return Math.sign(past) * Math.min(Math.ceil((past * past) / 8), 2000);
}

export class LogSelection {
  readonly #log: Log;
  /** Where it begins. It stays when nothing is selected, for what comes next to begin there. */
  #anchor = $state<number | null>(null);
  /** Where it ends, which may be before it begins; null while nothing is selected. */
  #head = $state<number | null>(null);

  constructor(log: Log) {
    this.#log = log;
  }

  get anchor(): number | null {
    return this.#anchor;
  }

  get head(): number | null {
    return this.#head;
  }

  /** How many shown lines are selected. */
  get count(): number {
    const [from, to] = this.#range();
    return to - from;
  }

  has(number: number): boolean {
    const [anchor, head] = [this.#anchor, this.#head];
    return anchor !== null && head !== null && number >= Math.min(anchor, head) && number <= Math.max(anchor, head);
  }

  /** Selects nothing, and begins with that line what is selected next. */
  begin(number: number): void {
    this.#anchor = number;
    this.#head = null;
  }

  /** Selects from where it began to that line. */
  to(number: number): void {
    if (this.#anchor === null) this.#anchor = number;
    this.#head = number;
  }

  all(): void {
    this.#anchor = this.#log.numberAt(0) ?? null;
    this.#head = this.#log.numberAt(this.#log.count - 1) ?? null;
  }

  clear(): void {
    this.#anchor = null;
    this.#head = null;
  }

  /** Moves its end by so many lines. Where nothing is selected, selects `first`, or from there to either end. */
  extend(by: number, first: number): void {
    if (this.#head === null) this.#anchor = first;
    const far = this.#head !== null || !Number.isFinite(by);
    const wanted = this.#log.indexOf(this.#head ?? first) + (far ? by : 0);
    this.#head = this.#log.numberAt(Math.min(Math.max(wanted, 0), this.#log.count - 1)) ?? null;
  }

  /** What is selected as it is shown: without colours, with times if asked for, and no line's end after the last. */
  text(timed: boolean): string {
    return this.#log.text(timed, ...this.#range()).slice(0, -1);
  }

  /** Positions from the first to after the last. */
  #range(): [number, number] {
    const [anchor, head] = [this.#anchor, this.#head];
    if (anchor === null || head === null) return [0, 0];
    return [this.#log.indexOf(Math.min(anchor, head)), this.#log.indexOf(Math.max(anchor, head) + 1)];
  }
}
