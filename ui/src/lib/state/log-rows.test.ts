import { describe, expect, it } from "vitest";
import { fit, LogRows, type Wrap } from "./log-rows";
import { MOST_LINES } from "./logs.svelte";
import { numbered, talkingLog } from "./talking-log";

const TEN: Wrap = { columns: 10, before: 0 };

it("draws a screenful and some more of a hundred thousand lines", () => {
  const { log, say } = talkingLog();
  say(numbered(0, 100_000));
  for (const wrap of [null, { columns: 4, before: 0 }]) {
    const rows = new LogRows(log, () => wrap);
    const [from, to] = rows.visible(rows.start(50_000), 30);
    expect(from).toBeLessThanOrEqual(50_000);
    expect(rows.start(to)).toBeGreaterThanOrEqual(rows.start(50_000) + 30);
    expect(to - from).toBeLessThan(100);
    expect(rows.visible(9e9, 30)).toEqual([100_000, 100_000]);
    expect(rows.visible(0, 30)[0]).toBe(0);
  }
});

describe("wrapped lines", () => {
  it("have the rows that their columns take, whatever their colours", () => {
    const { log, say } = talkingLog();
    say(["", "0123456789", "0123456789a", "\u001b[31m0123456789\u001b[0m", "日本日本日本"]);
    const rows = new LogRows(log, () => TEN);
    expect([0, 1, 2, 3, 4, 5].map((position) => rows.start(position))).toEqual([0, 1, 2, 4, 5, 7]);
    expect(rows.total).toBe(7);
    expect([-1, 0, 1.5, 2, 3.9, 4, 6, 7].map((row) => rows.at(row))).toEqual([0, 0, 1, 2, 2, 3, 4, 5]);
  });

  it("are counted anew for another width, with times, and for a search", () => {
    const { log, say } = talkingLog();
    say(["a".repeat(20), "b".repeat(20), "a".repeat(5)]);
    let wrap: Wrap | null = TEN;
    const rows = new LogRows(log, () => wrap);
    expect(rows.total).toBe(5);
    wrap = { columns: 5, before: 0 };
    expect(rows.total).toBe(9);
    wrap = { columns: 5, before: 1 };
    expect(rows.total).toBe(12);
    log.search = "a";
    expect(rows.total).toBe(7);
    log.search = "";
    expect(rows.total).toBe(12);
    wrap = null;
    expect(rows.total).toBe(3);
  });

  it("lie as if counted anew while lines come and old ones go, searched or not", () => {
    for (const search of ["", "x"]) {
      const { log, say } = talkingLog();
      const rows = new LogRows(log, () => TEN);
      log.search = search;
      const batch = (size: number) => Array.from({ length: size }, (_, index) => "x".repeat((index * 7) % 45));
      for (const size of [10, MOST_LINES - 5, 1000, 7]) {
        say(batch(size));
        const anew = new LogRows(log, () => TEN);
        expect(rows.total).toBe(anew.total);
        const middle = Math.floor(log.count / 2);
        expect([1, middle, log.count - 1].map((position) => rows.start(position))).toEqual(
          [1, middle, log.count - 1].map((position) => anew.start(position)),
        );
        expect(rows.at(rows.start(middle))).toBe(middle);
      }
    }
  }, 30_000);

  it("go on where lines went that were never counted", () => {
    const { log, say } = talkingLog();
    let wrap: Wrap | null = null;
    const rows = new LogRows(log, () => wrap);
    wrap = { columns: 6, before: 0 };
    say(numbered(0, 10));
    expect(rows.total).toBe(10);
    wrap = null;
    say(numbered(10, MOST_LINES + 100_000));
    wrap = { columns: 6, before: 0 };
    expect(rows.total).toBe(2 * MOST_LINES);
  });
});

it("finds the place of a line again when lines wrap or are searched", () => {
  const { log, say } = talkingLog();
  say(numbered(0, 100));
  let wrap: Wrap | null = null;
  const rows = new LogRows(log, () => wrap);
  const place = rows.placeOf(50, 47.5);
  expect(rows.topFor(place)).toBe(47.5);
  wrap = { columns: 4, before: 0 };
  expect(rows.topFor(place)).toBe(rows.start(50) - 2.5);
  // What was further down in a wrapped line is its beginning where it does not wrap.
  const inside = rows.placeOf(50, rows.start(50) + 1);
  wrap = null;
  expect(rows.topFor(inside)).toBe(50);
  log.search = "line 6";
  expect(rows.topFor(rows.placeOf(50, 0))).toBe(0);
  expect(log.numberAt(log.indexOf(50))).toBe(60);
});

it("fits as many characters as there is room for, and half a one to spare", () => {
  expect(fit(100, 8)).toEqual({ columns: 12, rest: 0 });
  expect(fit(103, 8)).toEqual({ columns: 12, rest: 3 });
  expect(fit(99, 8)).toEqual({ columns: 11, rest: 7 });
  expect(fit(-5, 8)).toEqual({ columns: 1, rest: 0 });
});
