import { expect, it } from "vitest";
import { dragSpeed, LogSelection } from "./log-selection.svelte";
import { MOST_LINES } from "./logs.svelte";
import { numbered, talkingLog } from "./talking-log";

function hundred() {
  const { log, say } = talkingLog();
  say(numbered(0, 100));
  return { log, say, selection: new LogSelection(log) };
}

it("selects from where it began to where it ends, either way", () => {
  const { selection } = hundred();
  selection.begin(5);
  expect([selection.count, selection.has(5), selection.text(false)]).toEqual([0, false, ""]);
  selection.to(7);
  expect(selection.text(false)).toBe("line 5\nline 6\nline 7");
  selection.to(4);
  expect(selection.text(false)).toBe("line 4\nline 5");
  expect([3, 4, 5, 6].map((number) => selection.has(number))).toEqual([false, true, true, false]);
  selection.clear();
  expect(selection.count).toBe(0);
});

it("copies what is shown, without colours", () => {
  const { log, say, selection } = hundred();
  say(["\u001b[31mline\u001b[0m 100"]);
  selection.begin(9);
  selection.to(100);
  log.search = "line 1";
  expect(selection.text(false).split("\n")).toEqual([...numbered(10, 20), "line 100"]);
  expect(selection.count).toBe(11);
});

it("takes all lines there are, and lets go of those that are forgotten", () => {
  const { say, selection } = hundred();
  selection.all();
  expect(selection.count).toBe(100);
  say(["later"]);
  expect(selection.count).toBe(100);
  say(numbered(0, MOST_LINES));
  expect([selection.count, selection.text(false)]).toEqual([0, ""]);
});

it("selects nothing of a log that is empty", () => {
  const selection = new LogSelection(talkingLog().log);
  selection.all();
  selection.extend(1, 0);
  expect([selection.count, selection.text(true)]).toEqual([0, ""]);
});

it("begins with the first line in view and goes on by keys, no further than the log", () => {
  const { selection } = hundred();
  selection.extend(1, 40);
  expect(selection.text(false)).toBe("line 40");
  selection.extend(1, 0);
  expect(selection.text(false)).toBe("line 40\nline 41");
  selection.extend(-2, 0);
  expect(selection.text(false)).toBe("line 39\nline 40");
  selection.extend(Infinity, 0);
  expect(selection.count).toBe(60);
  selection.extend(-Infinity, 0);
  expect(selection.count).toBe(41);
  selection.clear();
  selection.extend(Infinity, 90);
  expect(selection.count).toBe(10);
});

it("drags faster the further the pointer is beyond an edge, and not within", () => {
  expect([100, 150, 200].map((pointer) => dragSpeed(pointer, 100, 200))).toEqual([0, 0, 0]);
  expect(dragSpeed(210, 100, 200)).toBeGreaterThan(0);
  expect(dragSpeed(240, 100, 200)).toBeGreaterThan(dragSpeed(210, 100, 200));
  expect(dragSpeed(60, 100, 200)).toBe(-dragSpeed(240, 100, 200));
  expect(dragSpeed(9999, 100, 200)).toBe(2000);
});
