/** What part of a log is in view: its end while it grows, or a line that stays where it is. */
import type { LogRows, Place } from "./log-rows";
import type { LogSelection } from "./log-selection.svelte";
import type { Log } from "./logs.svelte";

/** A row's height in pixels. */
export const ROW = 19;

/** What scrolls. */
export type Pane = Pick<HTMLElement, "scrollTop" | "scrollHeight" | "clientHeight">;

export class LogScroll {
  readonly #log: Log;
  readonly #rows: LogRows;
  readonly #selection: LogSelection;
  following = $state(true);
  /** The view's height in pixels. */
  height = $state(0);
  /** How many pixels of the log are above the view. */
  #top = $state(0);
  /** The line that stays where it is when lines wrap, a search ends, or old lines go. */
  #place: Place | null = null;
  /** How many rows there were when the view was settled. */
  #laid = 0;

  constructor(log: Log, rows: LogRows, selection: LogSelection) {
    this.#log = log;
    this.#rows = rows;
    this.#selection = selection;
  }

  /** Positions to draw, from one to before another. */
  get range(): [number, number] {
    return this.#rows.visible(this.#top / ROW, this.height / ROW);
  }

  /** Forgets where it was, for another log. */
  reset(): void {
    this.#place = null;
  }

  /** Puts the pane where it belongs once rows, its height or `following` have changed. */
  settle(pane: Pane): void {
    // A person's scrolling whose event is still to come goes first. Where rows went, the browser may have scrolled.
    if (this.#rows.total >= this.#laid) this.scrolled(pane);
    this.#laid = this.#rows.total;
    if (this.following) {
      pane.scrollTop = pane.scrollHeight;
    } else if (this.#place !== null) {
      const top = this.#rows.topFor(this.#place) * ROW;
      if (Math.abs(top - this.#top) >= 1) pane.scrollTop = top;
    }
    this.#top = pane.scrollTop;
    if (this.following) this.keep();
  }

  /**
   * Takes where a person has scrolled to, and says whether somebody did. One who scrolls up reads; one who comes back
   * to the end follows again.
   */
  scrolled(pane: Pane): boolean {
    if (pane.scrollTop === this.#top) return false;
    const up = pane.scrollTop < this.#top;
    this.#top = pane.scrollTop;
    if (this.#top + pane.clientHeight >= (this.#rows.total - 1) * ROW) this.following = true;
    else if (up) this.following = false;
    this.keep();
    return true;
  }

  /** Remembers where the selection's end is, if it is in view, or else the first line that is. */
  keep(): void {
    const head = this.#selection.head;
    const number = this.#shows(head) ? head : this.edge(1);
    this.#place = number === null ? null : this.#rows.placeOf(number, this.#top / ROW);
  }

  /** Moves the selection's end by so many lines and scrolls to it; one that is new begins with what is in view. */
  extend(pane: Pane, by: number): void {
    const anchor = this.#selection.anchor;
    const first = this.#shows(anchor) ? anchor : this.edge(by);
    if (first === null) return;
    this.#selection.extend(by, first);
    this.#reveal(pane, this.#selection.head ?? first);
  }

  /** Selects the next line that matches, or the one before, and scrolls to it; the first time one in view. */
  seek(pane: Pane, by: 1 | -1): void {
    const from = this.#selection.head ?? (this.edge(by) ?? 0) - by;
    const number = this.#log.matchBeside(from, by);
    if (number === undefined) return;
    this.#selection.begin(number);
    this.#selection.to(number);
    this.#reveal(pane, number);
  }

  /** Scrolls no further than the line needs to be seen. */
  #reveal(pane: Pane, number: number): void {
    this.following = false;
    const position = this.#log.indexOf(number);
    const [start, end] = [this.#rows.start(position) * ROW, this.#rows.start(position + 1) * ROW];
    pane.scrollTop = start < this.#top ? start : Math.max(this.#top, end - this.height);
    this.#top = pane.scrollTop;
    this.keep();
  }

  /** The number of the first line in view, or of the last one for a way that goes up. */
  edge(by: number): number | null {
    const row = by > 0 ? this.#top / ROW : (this.#top + this.height) / ROW - 1;
    return this.#log.numberAt(Math.min(this.#rows.at(row), this.#log.count - 1)) ?? null;
  }

  #shows(number: number | null): boolean {
    if (number === null) return false;
    const position = this.#log.indexOf(number);
    const [start, end] = [this.#rows.start(position) * ROW, this.#rows.start(position + 1) * ROW];
    return start < this.#top + this.height && end > this.#top;
  }
}
