import { describe, expect, it } from "vitest";
import type { LogLine } from "../host";
import { divided, levelOf, Log, MOST_CHARACTERS, MOST_LINES, patterns, plain, spans } from "./logs.svelte";
import { MemoryHost } from "../host/memory";
import { numbered, talkingLog } from "./talking-log";

describe("a line's colours", () => {
  it("are read from ANSI and end where they end", () => {
    expect(spans("\u001b[1;31mERROR\u001b[0m rest")).toEqual([
      { text: "ERROR", colour: 1, bold: true },
      { text: " rest", colour: null, bold: false },
    ]);
  });

  it("are not confused by cursor movements, which are dropped", () => {
    expect(plain("a\u001b[2Kb\u001b[10;3Hc")).toBe("abc");
  });

  it("leave nothing of what a terminal does not show: modes, letters, titles, links, and what a line is cut in", () => {
    expect(plain("\u001b[?25la\u001b(Bb\u001b]0;title\u0007c\u001b]8;;https://x\u001b\\d\u001b]8;;\u001b\\e\u001b[0 qf\u001b=g\u001b]0;cut")).toBe("abcdefg");
    expect(spans("\u001b[>4;31mx")).toEqual([{ text: "x", colour: null, bold: false }]);
  });

  it("are not misread where a palette's codes look like others", () => {
    const red = (bold: boolean) => [{ text: "x", colour: 1, bold }];
    const own = (bold: boolean) => [{ text: "x", colour: null, bold }];
    for (const [codes, parts] of [
      ["38;5;9", red(false)],
      ["38;5;1;1", red(true)],
      ["38;5;34", own(false)],
      ["38;2;31;1;0", own(false)],
      ["38;2;255;0;0;1", own(true)],
      ["48;5;31", own(false)],
      ["31;48;5;0", red(false)],
      ["31;58;5;1", red(false)],
      ["38:5:31", own(false)],
      ["31;4:3", red(false)],
      ["38", own(false)],
    ] as const)
      expect(spans(`\u001b[${codes}mx`), codes).toEqual(parts);
  });
});

it("takes a line's level from words that say one, and from no others", () => {
  for (const [text, level] of [
    ["2026-11-22 ERROR cannot open", "error"],
    ['{"level":"fatal","msg":"x"}', "error"],
    ["time=1 level=warning msg=x", "warning"],
    ["[Warn] disk is full", "warning"],
    ["DEBUG 1 row", "debug"],
    ["there is no error, 0 ERRORS", null],
    ["\u001b[31mERROR\u001b[0m has a colour", null],
    ["", null],
  ] as const)
    expect(levelOf(text)).toBe(level);
});

describe("searching", () => {
  it("calls a broken pattern invalid instead of throwing", () => {
    expect(patterns("(", true)).toBeNull();
  });

  it("takes what is no regex letter by letter, in either case", () => {
    const pattern = patterns("[A] $1.50 (+?)\\", false);
    expect(pattern?.one.test("costs [a] $1.50 (+?)\\ now")).toBe(true);
    expect(pattern?.one.test("costs [a] $1x50 (+?)\\ now")).toBe(false);
  });

  it("marks what is found across colours, and leaves them as they are", () => {
    const parts = divided(spans("one \u001b[31mtw\u001b[0mo, two"), patterns("TWO", false)?.all ?? null);
    expect(parts.map(({ text, colour, found }) => [text, colour, found])).toEqual([
      ["one ", null, false],
      ["tw", 1, true],
      ["o", null, true],
      [", ", null, false],
      ["two", null, true],
    ]);
    expect(divided(spans("nothing"), patterns("x*", true)?.all ?? null).map(({ text, found }) => [text, found])).toEqual([["nothing", false]]);
    expect(divided(spans("a".repeat(1000)), patterns("a", false)?.all ?? null).filter(({ found }) => found)).toHaveLength(100);
  });

  it("goes from match to match, and from the last to the first", () => {
    const { log, say } = talkingLog();
    say(["hit 0", "1", "2", "hit 3", "4", "hit 5"]);
    log.search = "hit";
    log.context = true;
    expect([log.matchBeside(-1, 1), log.matchBeside(0, 1), log.matchBeside(4, 1), log.matchBeside(5, 1)]).toEqual([0, 3, 5, 0]);
    expect([log.matchBeside(6, -1), log.matchBeside(5, -1), log.matchBeside(4, -1), log.matchBeside(0, -1)]).toEqual([5, 3, 3, 5]);
    log.search = "no such thing";
    expect(log.matchBeside(0, 1)).toBeUndefined();
  });

  it("finds text that colours cut in two", () => {
    const log = new Log();
    log.follow(hostThatSays([["one \u001b[31mtw\u001b[0mo", "three"]]), "x");
    log.search = "two";
    expect(log.count).toBe(1);
    expect(log.text(false)).toBe("one two\n");
    log.search = "";
    expect(log.count).toBe(2);
    expect(log.text(false)).toBe("one two\nthree\n");
  });

  it("says of a line when it was written where that is known", () => {
    const log = new Log();
    const host = hostThatSays([]);
    host.followLog = (_, seen) => {
      seen([{ atMs: 1000, stream: "stdout", text: "known" }, { atMs: 0, stream: "stdout", text: "unknown" }]);
      return () => undefined;
    };
    log.follow(host, "x");
    expect(log.text(true)).toBe("1970-01-01T00:00:01.000Z known\nunknown\n");
  });

  it("goes on among lines that come later, and forgets those that are forgotten", () => {
    let say: (lines: LogLine[]) => void = () => undefined;
    const host = hostThatSays([]);
    host.followLog = (_, seen) => {
      say = seen;
      return () => undefined;
    };
    const log = new Log();
    log.follow(host, "x");
    log.search = "yes";
    say(lines(["yes 1", "no"]));
    say(lines(["yes 2"]));
    expect(log.slice(0, 9).map(({ line }) => line.text)).toEqual(["yes 1", "yes 2"]);
    say(lines(Array.from({ length: MOST_LINES - 1 }, () => "no")));
    expect(log.slice(0, 9).map(({ line }) => line.text)).toEqual(["yes 2"]);
  });
});

function lines(texts: string[]): LogLine[] {
  return texts.map((text) => ({ atMs: 0, stream: "stdout", text }));
}

/** A host whose log is these batches. */
function hostThatSays(batches: string[][]): MemoryHost {
  const host = new MemoryHost({ containers: 1, lines: 0, machine: "running" });
  host.followLog = (_, seen) => {
    for (const batch of batches) seen(lines(batch));
    return () => undefined;
  };
  return host;
}

it("shows what is around a match once, also where it comes later", () => {
  let seen: (lines: LogLine[]) => void = () => undefined;
  const host = hostThatSays([]);
  host.followLog = (_, wanted) => {
    seen = wanted;
    return () => undefined;
  };
  const log = new Log();
  log.follow(host, "x");
  log.search = "match";
  log.context = true;
  const said = (from: number, to: number) => Array.from({ length: to - from }, (_, at) => ([10, 12, 30].includes(from + at) ? "a match" : `${from + at}`));
  seen(lines(said(0, 11)));
  seen(lines(said(11, 40)));
  expect(log.matches).toBe(3);
  const numbers = log.slice(0, log.count).map((shown) => shown.number);
  expect(numbers).toEqual([7, 8, 9, 10, 11, 12, 13, 14, 15, 27, 28, 29, 30, 31, 32, 33]);
  expect(log.slice(3, 5).map(({ line }) => log.isAround(line))).toEqual([false, true]);
  log.context = false;
  expect(log.count).toBe(3);
  // What is forgotten is not shown either.
  log.context = true;
  seen(lines(said(100, 100 + MOST_LINES)));
  expect([log.matches, log.count]).toEqual([0, 0]);
});

it("shows one stream, in which it searches and has what is around a match, also of lines that come later", () => {
  const { log, say } = talkingLog();
  const shown = () => log.slice(0, log.count).map(({ line }) => line.text);
  say(["out 1", "out 2"]);
  say(["err 1", "err 2"], "stderr");
  log.stream = "stderr";
  expect(shown()).toEqual(["err 1", "err 2"]);
  say(["out 3"]);
  say(["err 3"], "stderr");
  expect([log.count, log.total, log.text(false)]).toEqual([3, 6, "err 1\nerr 2\nerr 3\n"]);

  log.search = "3";
  expect([shown(), log.matches]).toEqual([["err 3"], 1]);
  log.context = true;
  expect(log.slice(0, 3).map(({ line }) => [line.text, log.isAround(line)])).toEqual([["err 1", true], ["err 2", true], ["err 3", false]]);
  say(["out 4"]);
  say(["err 4"], "stderr");
  expect(shown()).toEqual(numbered(1, 5).map((text) => text.replace("line", "err")));
  log.stream = "stdout";
  expect([shown(), log.matches]).toEqual([["out 1", "out 2", "out 3", "out 4"], 1]);
  log.search = "";
  expect(log.count).toBe(4);
  log.stream = null;
  expect(log.count).toBe(8);

  // What is forgotten is gone from a stream as well.
  log.stream = "stderr";
  say(numbered(0, MOST_LINES));
  expect([log.count, log.gone]).toEqual([0, 4]);
});

it("forgets the oldest lines of a log without end", () => {
  const batch = (from: number) => Array.from({ length: MOST_LINES }, (_, index) => `${from + index}`);
  const log = new Log();
  log.follow(hostThatSays([batch(0), batch(MOST_LINES), ["last"]]), "x");
  expect(log.total).toBe(MOST_LINES);
  expect(log.slice(0, 1)).toEqual([{ number: MOST_LINES + 1, line: { atMs: 0, stream: "stdout", text: `${MOST_LINES + 1}` } }]);
  expect(log.slice(MOST_LINES - 1, MOST_LINES)[0]?.line.text).toBe("last");
});

it("forgets the oldest lines where few long ones are too much, and says how many", () => {
  // One text, over and over: what is counted here does not take the memory.
  const long = "x".repeat(MOST_CHARACTERS / 8);
  const { log, say } = talkingLog();
  say(["first", "second"]);
  expect([log.total, log.dropped]).toEqual([2, 0]);
  say(Array.from({ length: 8 }, () => long));
  expect([log.total, log.dropped]).toEqual([8, 2]);
  say(["short"]);
  expect([log.total, log.dropped]).toEqual([8, 3]);
  // One that is too long by itself is shown all the same, alone.
  say([long.repeat(9)]);
  expect([log.total, log.dropped]).toEqual([1, 11]);
  say(["goes on"]);
  expect([log.total, log.slice(0, 9).map(({ line }) => line.text)]).toEqual([1, ["goes on"]]);
});
