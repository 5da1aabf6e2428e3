/** The shells that are open in a container, each in a tab of its own. */

/** Each takes a process in the container and a connection. */
export const MOST_SHELLS = 8;

export class Shells {
  /** Their numbers, in the order of their tabs. There is one at least. */
  open = $state.raw<readonly number[]>([1]);
  shown = $state(1);
  #next = 2;

  get full(): boolean {
    return this.open.length >= MOST_SHELLS;
  }

  add(): void {
    if (this.full) return;
    this.shown = this.#next;
    this.open = [...this.open, this.#next];
    this.#next += 1;
  }

  /** Closes one; of its neighbours the next one is shown. The last one stays. */
  close(number: number): void {
    const at = this.open.indexOf(number);
    if (at < 0 || this.open.length === 1) return;
    this.open = this.open.filter((one) => one !== number);
    if (this.shown === number) this.shown = this.open[Math.min(at, this.open.length - 1)] ?? number;
  }
}
