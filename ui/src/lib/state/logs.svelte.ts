/** A container's log: what has come, what of it is searched for, which part of it is on the screen. */
import { untrack } from "svelte";
import type { Host, LogLine, LogStream, Stop } from "../host";
import { firstWhere } from "./bisect";
import { Ring } from "./ring";

/** More than this is dropped from the beginning, so that a talkative container does not take the memory. */
export const MOST_LINES = 200_000;
/** The same for long lines: characters of all that are kept. A web view has one or two bytes for each. */
export const MOST_CHARACTERS = 64 * 1024 * 1024;

/** So many matches are marked in one line: each is an element of the page. */
const MOST_MARKS = 100;

/** So many lines before and after one that matches belong to its context. */
const CONTEXT = 3;

export interface Span {
  text: string;
  /** The engine's colour, 0 to 7; null for the text's own. */
  colour: number | null;
  bold: boolean;
}

/**
 * What a terminal acts upon and does not show (ECMA-48): a control sequence with its parameters and its last letter; a
 * string, such as a title or a link, to its end or the line's; any other escape, such as a choice of letters.
 */
const SEQUENCE = /\u001b(?:\[([\x30-\x3f]*)[\x20-\x2f]*([\x40-\x7e])|[\]PX^_][^]*?(?:\u0007|\u001b\\|$)|[\x20-\x2f]*[\x30-\x7e])/g;

/** Those that choose of a larger palette, and how many codes follow that say which: by the code right behind them. */
const PALETTES: ReadonlySet<number> = new Set([38, 48, 58]);
const FOLLOWING: Readonly<Record<string, number>> = { "5": 2, "2": 4 };

/** Reads colours and boldness of ANSI sequences and drops all other sequences. */
export function spans(text: string): Span[] {
  if (!text.includes("\u001b")) return [{ text, colour: null, bold: false }];
  const found: Span[] = [];
  let colour: number | null = null;
  let bold = false;
  let from = 0;
  const add = (to: number) => {
    if (to > from) found.push({ text: text.slice(from, to), colour, bold });
  };
  for (const sequence of text.matchAll(SEQUENCE)) {
    add(sequence.index);
    from = sequence.index + sequence[0].length;
    // With a mark before them they are another program's own.
    if (sequence[2] !== "m" || /^[<=>?]/.test(sequence[1] ?? "")) continue;
    const codes = (sequence[1] || "0").split(";");
    for (let at = 0; at < codes.length; at += 1) {
      // What holds its own arguments, behind colons, is no number.
      const code = Number(codes[at]);
      if (PALETTES.has(code)) {
        // Of the palette, its first sixteen have names here; all others are the text's own.
        const place = codes[at + 1] === "5" ? Number(codes[at + 2] ?? NaN) : NaN;
        if (code === 38) colour = place < 16 ? place % 8 : null;
        at += FOLLOWING[codes[at + 1] ?? ""] ?? 0;
      } else if (code === 0) [colour, bold] = [null, false];
      else if (code === 1) bold = true;
      else if (code === 22) bold = false;
      else if (code === 39) colour = null;
      else if (code >= 30 && code <= 37) colour = code - 30;
      else if (code >= 90 && code <= 97) colour = code - 90;
    }
  }
  add(text.length);
  return found;
}

function textOf(parts: readonly Span[]): string {
  return parts.map((part) => part.text).join("");
}

export function plain(text: string): string {
  return textOf(spans(text));
}

/** A part of a line, and whether it is what is searched for. */
export interface Part extends Span {
  found: boolean;
}

/** Divides parts where a match begins and ends, each with the colour that it has. Of many matches the first are told. */
export function divided(parts: readonly Span[], pattern: RegExp | null): Part[] {
  if (pattern === null) return parts.map((part) => ({ ...part, found: false }));
  const hits: [number, number][] = [];
  for (const hit of textOf(parts).matchAll(pattern)) {
    if (hit[0] !== "") hits.push([hit.index, hit.index + hit[0].length]);
    if (hits.length === MOST_MARKS) break;
  }
  const all: Part[] = [];
  let start = 0;
  for (const part of parts) {
    const end = start + part.text.length;
    let from = start;
    const add = (to: number, found: boolean) => {
      if (to > from) all.push({ ...part, text: part.text.slice(from - start, to - start), found });
      from = Math.max(from, to);
    };
    for (const [first, after] of hits) {
      if (after <= from || first >= end) continue;
      add(first, false);
      add(Math.min(after, end), true);
    }
    add(end, false);
    start = end;
  }
  return all;
}

/** How bad a line says that it is. */
export type Level = "error" | "warning" | "debug";

const LEVELS: readonly (readonly [Level, string])[] = [
  ["error", "error|fatal|panic|critical"],
  ["warning", "warn|warning"],
  ["debug", "debug|trace"],
];
/** A word of its own in capitals, in brackets, or behind `level`: what is only spoken of, such as "no error", is no level. */
const PATTERNS = LEVELS.map(
  ([level, words]) => [level, new RegExp(`\\b(?:${words.toUpperCase()})\\b`), new RegExp(`(?:\\blevel"?\\s*[=:]\\s*"?|\\[)(?:${words})\\b`, "i")] as const,
);
/** A level stands near a line's beginning. */
const HEAD = 200;

/** The level of a line; null where it says none, or has colours of its own. */
export function levelOf(text: string): Level | null {
  if (text.includes("\u001b")) return null;
  const head = text.slice(0, HEAD);
  return PATTERNS.find(([, word, named]) => word.test(head) || named.test(head))?.[0] ?? null;
}

/** What is searched for, to be tested by and to be marked; null where the pattern is not valid. */
export function patterns(search: string, regex: boolean): { one: RegExp; all: RegExp } | null {
  const source = regex ? search : search.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
  try {
    return { one: new RegExp(source, "i"), all: new RegExp(source, "gi") };
  } catch {
    return null;
  }
}

/** A line with its number, which it keeps while older ones are forgotten. */
export interface Numbered {
  number: number;
  line: LogLine;
}

const ringOfLines = (): Ring<LogLine> => new Ring<LogLine>(MOST_LINES, MOST_CHARACTERS, (line) => line.text.length);

/**
 * Lines come in batches, several a second for a talkative container. They go into a ring, and only what is new is
 * searched, so that a batch costs what it holds and not what is kept.
 */
export class Log {
  #ring = ringOfLines();
  /** Numbers of the lines that match; null while all do: nothing valid is searched for, in both streams. */
  #found: number[] | null = null;
  /** Numbers of the lines that are shown: the same, or with their context. */
  #shown: number[] | null = null;
  /** How many lines are still to come after a match, and which went before what comes next, for their context. */
  #after = 0;
  #before: number[] = [];
  #epoch = 0;
  #gone = 0;
  /** Counts changes of what is not reactive by itself. */
  #version = $state(0);
  #search = $state("");
  #regex = $state(false);
  #context = $state(false);
  #stream = $state<LogStream | null>(null);
  #patterns: { one: RegExp; all: RegExp } | null = null;
  valid = $state(true);

  get search(): string {
    return this.#search;
  }

  set search(text: string) {
    this.#search = text;
    this.#searchAnew();
  }

  get regex(): boolean {
    return this.#regex;
  }

  set regex(on: boolean) {
    this.#regex = on;
    this.#searchAnew();
  }

  get context(): boolean {
    return this.#context;
  }

  /** Whether lines around those that match are shown, too. */
  set context(on: boolean) {
    this.#context = on;
    this.#searchAnew();
  }

  get stream(): LogStream | null {
    return this.#stream;
  }

  /** The stream whose lines are shown; null for both. Those of the other one are no context, either. */
  set stream(stream: LogStream | null) {
    this.#stream = stream;
    this.#searchAnew();
  }

  /** How many lines are kept. */
  get total(): number {
    void this.#version;
    return this.#ring.length;
  }

  /** How many lines came and are not kept any more. */
  get dropped(): number {
    void this.#version;
    return this.#ring.first;
  }

  /** How many of those that are kept match. */
  get matches(): number {
    void this.#version;
    return this.#found?.length ?? 0;
  }

  /** How many lines are shown: those that match, with their context if asked for, or all. */
  get count(): number {
    void this.#version;
    return this.#shown?.length ?? this.#ring.length;
  }

  /** How often what is shown began anew: with another log or search. Between, lines only come last and go first. */
  get epoch(): number {
    void this.#version;
    return this.#epoch;
  }

  /** How many lines that would be shown have been forgotten in this epoch. */
  get gone(): number {
    void this.#version;
    return this.#gone;
  }

  /** The number of the shown line at a position. */
  numberAt(position: number): number | undefined {
    void this.#version;
    return this.#number(position);
  }

  /** The position of the first shown line with that number or a higher one; the count where there is none. */
  indexOf(number: number): number {
    void this.#version;
    const shown = this.#shown;
    if (shown === null) return Math.min(Math.max(number - this.#ring.first, 0), this.#ring.length);
    return firstWhere(shown.length, (position) => (shown[position] ?? Infinity) >= number);
  }

  /** Whether a line is shown for another one's sake. */
  isAround(line: LogLine): boolean {
    void this.#version;
    return this.#patterns !== null && !this.#patterns.one.test(plain(line.text));
  }

  /** A line in its colours, with what of it is searched for. */
  parts(line: LogLine): Part[] {
    void this.#version;
    return divided(spans(line.text), this.#patterns?.all ?? null);
  }

  /** The number of the next line that matches after that one, or before it; behind the last one comes the first. */
  matchBeside(number: number, by: 1 | -1): number | undefined {
    void this.#version;
    const found = this.#found ?? [];
    const after = firstWhere(found.length, (position) => (found[position] ?? Infinity) >= number + (by > 0 ? 1 : 0));
    return by > 0 ? (found[after] ?? found[0]) : (found[after - 1] ?? found.at(-1));
  }

  /** Shown lines from one position to before another. */
  slice(from: number, to: number): Numbered[] {
    void this.#version;
    const lines: Numbered[] = [];
    for (let position = from; position < to; position += 1) {
      const number = this.#number(position);
      const line = number === undefined ? undefined : this.#ring.at(number);
      if (number !== undefined && line !== undefined) lines.push({ number, line });
    }
    return lines;
  }

  /**
   * Shown lines, from one position to before another or all, as a file has them: without colours, with their times if
   * asked for.
   */
  text(timed: boolean, from = 0, to = this.count): string {
    // eslint-disable-next-line svelte/prefer-svelte-reactivity -- it does not outlive this call
    const time = (line: LogLine): string => (timed && line.atMs > 0 ? `${new Date(line.atMs).toISOString()} ` : "");
    return this.slice(from, to)
      .map(({ line }) => `${time(line)}${plain(line.text)}\n`)
      .join("");
  }

  follow(host: Pick<Host, "followLog">, id: string): Stop {
    this.#ring = ringOfLines();
    // What is searched for is not what is followed: an effect that follows does not begin again with each letter.
    untrack(() => this.#searchAnew());
    return host.followLog(id, (batch) => this.#take(batch));
  }

  #number(position: number): number | undefined {
    if (this.#shown !== null) return this.#shown[position];
    return position >= 0 && position < this.#ring.length ? this.#ring.first + position : undefined;
  }

  #take(batch: LogLine[]): void {
    const [first, from] = [this.#ring.first, this.#ring.next];
    this.#ring.push(batch);
    if (this.#found !== null && this.#shown !== null) {
      this.#gone += this.#forget(this.#shown);
      if (this.#shown !== this.#found) this.#forget(this.#found);
      this.#find(Math.max(from, this.#ring.first));
    } else {
      this.#gone += this.#ring.first - first;
    }
    untrack(() => (this.#version += 1));
  }

  #searchAnew(): void {
    const wanted = this.#search === "" ? null : patterns(this.#search, this.#regex);
    this.valid = this.#search === "" || wanted !== null;
    this.#patterns = wanted;
    this.#found = wanted === null && this.#stream === null ? null : [];
    this.#shown = wanted !== null && this.#context ? [] : this.#found;
    [this.#after, this.#before] = [0, []];
    this.#epoch += 1;
    this.#gone = 0;
    this.#find(this.#ring.first);
    this.#version += 1;
  }

  /** Lets go of the lines that the ring has let go of, and says how many. */
  #forget(numbers: number[]): number {
    const gone = firstWhere(numbers.length, (position) => (numbers[position] ?? Infinity) >= this.#ring.first);
    if (gone > 0) numbers.splice(0, gone);
    return gone;
  }

  /** Adds what matches from that number on. */
  #find(from: number): void {
    const [pattern, stream, found, shown] = [this.#patterns?.one, this.#stream, this.#found, this.#shown];
    if (found === null || shown === null) return;
    for (let number = from; number < this.#ring.next; number += 1) {
      const line = this.#ring.at(number);
      if (line === undefined || (stream !== null && line.stream !== stream)) continue;
      const matches = pattern === undefined || pattern.test(plain(line.text));
      if (matches) found.push(number);
      if (shown === found) continue;
      if (matches) {
        shown.push(...this.#before.filter((near) => near >= this.#ring.first), number);
        [this.#after, this.#before] = [CONTEXT, []];
      } else if (this.#after > 0) {
        shown.push(number);
        this.#after -= 1;
      } else {
        this.#before.push(number);
        if (this.#before.length > CONTEXT) this.#before.shift();
      }
    }
  }
}
