/** The shells that are open for a container, each in a tab of its own: in it, or beside it for what its image lacks. */

/** Each takes a process in the container, or a container, and a connection. */
export const MOST_SHELLS = 8;

export interface Shell {
  readonly number: number;
  /** Whether it is one beside the container. */
  readonly debug: boolean;
}

export class Shells {
  /** In the order of their tabs. There is one at least. */
  open = $state.raw<readonly Shell[]>([{ number: 1, debug: false }]);
  /** The number of the one that is shown. */
  shown = $state(1);
  #next = 2;

  get full(): boolean {
    return this.open.length >= MOST_SHELLS;
  }

  add(debug: boolean): void {
    if (this.full) return;
    this.shown = this.#next;
    this.open = [...this.open, { number: this.#next, debug }];
    this.#next += 1;
  }

  /** Has a debug shell where there is another one, such as one that could not be started. */
  turn(number: number): void {
    this.open = this.open.map((shell) => (shell.number === number ? { number, debug: true } : shell));
  }

  /** Closes one; of its neighbours the next one is shown. The last one stays. */
  close(number: number): void {
    const at = this.open.findIndex((shell) => shell.number === number);
    if (at < 0 || this.open.length === 1) return;
    this.open = this.open.filter((shell) => shell.number !== number);
    if (this.shown === number) this.shown = this.open[Math.min(at, this.open.length - 1)]?.number ?? number;
  }
}
