import { describe, expect, it } from "vitest";
import { Log, matcher, MOST_LINES, plain, spans, visibleRange } from "./logs.svelte";
import { MemoryHost } from "../host/memory";

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
});

describe("searching", () => {
  it("calls a broken pattern invalid instead of throwing", () => {
    expect(matcher("(", true)).toBeNull();
  });

  it("finds text that colours cut in two", async () => {
    const host = new MemoryHost({ containers: 1, lines: 0, running: true });
    host.followLog = (_, seen) => {
      seen([{ atMs: 0, stream: "stdout", text: "one \u001b[31mtw\u001b[0mo" }]);
      return () => undefined;
    };
    const log = new Log();
    log.follow(host, "x");
    log.search = "two";
    expect(log.shown).toHaveLength(1);
  });
});

it("draws a screenful and some more of a hundred thousand lines", () => {
  const [from, to] = visibleRange(50_000 * 20, 600, 20, 100_000);
  expect(from).toBeLessThanOrEqual(50_000);
  expect(to).toBeGreaterThanOrEqual(50_030);
  expect(to - from).toBeLessThan(100);
  expect(visibleRange(9e9, 600, 20, 10)).toEqual([10, 10]);
});

it("forgets the oldest lines of a log without end", () => {
  const host = new MemoryHost({ containers: 1, lines: 0, running: true });
  host.followLog = (_, seen) => {
    const batch = (from: number) =>
      seen(Array.from({ length: MOST_LINES }, (_, index) => ({ atMs: 0, stream: "stdout", text: `${from + index}` })));
    batch(0);
    batch(MOST_LINES);
    return () => undefined;
  };
  const log = new Log();
  log.follow(host, "x");
  expect(log.lines).toHaveLength(MOST_LINES);
  expect(log.lines[0]?.text).toBe(`${MOST_LINES}`);
});
