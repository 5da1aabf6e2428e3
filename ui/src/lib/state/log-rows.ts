/**
 * Where a log's lines are on the screen, in rows of one height: a line has one row, or as many as it wraps to.
 *
 * Lines come at the end and go from the beginning, and none between changes. Sums of their rows are therefore only
 * added to and cut off, and found by bisection, so that scrolling does not read what is kept. Rows of wrapped lines are
 * counted from their columns and not measured, which is exact but for glyphs that another font lends.
 */
import { firstWhere } from "./bisect";
import { columnsOf } from "./columns";
import { type Log, plain } from "./logs.svelte";

/** So many rows beyond either edge of the view are drawn, so that scrolling a little shows no blank. */
const BEYOND = 20;

export interface Wrap {
  /** How many columns a row has. */
  columns: number;
  /** How many columns stand before each line's text. */
  before: number;
}

/** Where a line is in a view. */
export interface Place {
  number: number;
  /** How many rows its beginning is above the view's; negative where it is further down. */
  above: number;
}

/**
 * How many characters fit into a width, with half a one to spare, so that rounding never wraps a line earlier, and what
 * is left of the width then. Widths are pixels.
 */
export function fit(width: number, character: number): { columns: number; rest: number } {
  const columns = Math.max(1, Math.floor(width / character - 0.5));
  return { columns, rest: Math.max(0, width - (columns + 0.5) * character) };
}

export class LogRows {
  readonly #log: Log;
  readonly #wrap: () => Wrap | null;
  /** Columns of each shown line, by position. */
  #widths: number[] = [];
  /** Rows of each shown line and all before it, by position. */
  #ends: number[] = [];
  /** How many of these rows are of lines that are forgotten. */
  #base = 0;
  /** What they were counted for. */
  #epoch = -1;
  #gone = 0;
  #columns = 0;
  #before = 0;

  /** `wrap` says how lines wrap, null where they do not. */
  constructor(log: Log, wrap: () => Wrap | null) {
    this.#log = log;
    this.#wrap = wrap;
  }

  get total(): number {
    return this.start(this.#log.count);
  }

  /** The row that the line at a position begins with. */
  start(position: number): number {
    if (!this.#count()) return position;
    return position <= 0 ? 0 : (this.#ends[position - 1] ?? this.#base) - this.#base;
  }

  /** The position of the line that has a row; the count of lines where none has. */
  at(row: number): number {
    const count = this.#log.count;
    if (!this.#count()) return Math.min(Math.max(Math.floor(row), 0), count);
    return firstWhere(count, (position) => (this.#ends[position] ?? Infinity) - this.#base > row);
  }

  /** Positions to draw, from one to before another, for a view that begins with the row `top` and has so many rows. */
  visible(top: number, rows: number): [number, number] {
    return [this.at(top - BEYOND), Math.min(this.#log.count, this.at(top + rows + BEYOND) + 1)];
  }

  /** Where a line is seen in a view that begins with the row `top`. */
  placeOf(number: number, top: number): Place {
    return { number, above: top - this.start(this.#log.indexOf(number)) };
  }

  /** The row that the view begins with if a line is seen where it was; the next line, if it is not shown any more. */
  topFor({ number, above }: Place): number {
    const position = this.#log.indexOf(number);
    const start = this.start(position);
    const rows = this.start(position + 1) - start;
    return start + (above < rows ? above : 0);
  }

  /** Counts what is new, and all where something else has changed. False where lines do not wrap. */
  #count(): boolean {
    const wrap = this.#wrap();
    if (wrap === null) return false;
    const { epoch, gone, count } = this.#log;
    const lost = gone - this.#gone;
    if (epoch !== this.#epoch || lost > this.#widths.length) {
      [this.#widths, this.#ends, this.#base] = [[], [], 0];
    } else if (lost > 0) {
      this.#base = this.#ends[lost - 1] ?? this.#base;
      this.#widths.splice(0, lost);
      this.#ends.splice(0, lost);
    }
    if (wrap.columns !== this.#columns || wrap.before !== this.#before) [this.#ends, this.#base] = [[], 0];
    [this.#epoch, this.#gone, this.#columns, this.#before] = [epoch, gone, wrap.columns, wrap.before];
    for (const { line } of this.#log.slice(this.#widths.length, count)) this.#widths.push(columnsOf(plain(line.text)));
    let end = this.#ends.at(-1) ?? this.#base;
    for (const width of this.#widths.slice(this.#ends.length)) {
      end += Math.max(1, Math.ceil((wrap.before + width) / wrap.columns));
      this.#ends.push(end);
    }
    return true;
  }
}
