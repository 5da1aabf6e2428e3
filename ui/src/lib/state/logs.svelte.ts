/** A container's log: what has come, what of it is searched for, which part of it is on the screen. */
import type { Host, LogLine, Stop } from "../host";

/** More than this is dropped from the beginning, so that a talkative container does not take the memory. */
export const MOST_LINES = 200_000;

export interface Span {
  text: string;
  /** The engine's colour, 0 to 7; null for the text's own. */
  colour: number | null;
  bold: boolean;
}

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
  for (const sequence of text.matchAll(/\u001b\[([\d;]*)([A-Za-z])/g)) {
    add(sequence.index);
    from = sequence.index + sequence[0].length;
    if (sequence[2] !== "m") continue;
    for (const code of (sequence[1] || "0").split(";").map(Number)) {
      if (code === 0) [colour, bold] = [null, false];
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

export function plain(text: string): string {
  return spans(text)
    .map((span) => span.text)
    .join("");
}

/** A test for one line; null where the pattern is not valid. */
export function matcher(search: string, regex: boolean): ((text: string) => boolean) | null {
  if (regex) {
    try {
      const pattern = new RegExp(search, "i");
      return (text) => pattern.test(text);
    } catch {
      return null;
    }
  }
  const wanted = search.toLowerCase();
  return (text) => text.toLowerCase().includes(wanted);
}

/** Which of `count` lines of one height to draw, with some beyond either edge. */
export function visibleRange(scroll: number, height: number, line: number, count: number): [number, number] {
  const from = Math.max(0, Math.floor(scroll / line) - 20);
  return [Math.min(from, count), Math.min(count, Math.ceil((scroll + height) / line) + 20)];
}

export class Log {
  lines = $state.raw<readonly LogLine[]>([]);
  search = $state("");
  regex = $state(false);
  readonly #match = $derived(this.search === "" ? () => true : matcher(this.search, this.regex));
  readonly valid = $derived(this.#match !== null);
  /** The lines that match; all of them while nothing valid is searched for. */
  readonly shown = $derived.by(() => {
    const match = this.#match;
    if (this.search === "" || match === null) return this.lines;
    return this.lines.filter((line) => match(plain(line.text)));
  });

  follow(host: Host, id: string): Stop {
    this.lines = [];
    return host.followLog(id, (batch) => {
      const all = [...this.lines, ...batch];
      this.lines = all.length > MOST_LINES ? all.slice(all.length - MOST_LINES) : all;
    });
  }
}
