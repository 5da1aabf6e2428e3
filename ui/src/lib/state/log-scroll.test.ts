import { expect, it } from "vitest";
import { LogRows, type Wrap } from "./log-rows";
import { LogScroll, type Pane, ROW } from "./log-scroll.svelte";
import { LogSelection } from "./log-selection.svelte";
import { MOST_LINES } from "./logs.svelte";
import { numbered, talkingLog } from "./talking-log";

/** Ten rows of a thousand lines, with a pane that keeps to its content as a browser's does. */
function tenRows() {
  const { log, say } = talkingLog();
  say(numbered(0, 1000));
  const wrap: { now: Wrap | null } = { now: null };
  const rows = new LogRows(log, () => wrap.now);
  const selection = new LogSelection(log);
  const view = new LogScroll(log, rows, selection);
  view.height = 10 * ROW;
  let top = 0;
  const within = (value: number) => Math.max(0, Math.min(value, rows.total * ROW - view.height));
  const pane: Pane = {
    clientHeight: view.height,
    get scrollHeight() {
      return Math.max(rows.total * ROW, view.height);
    },
    get scrollTop() {
      top = within(top);
      return top;
    },
    set scrollTop(value: number) {
      top = within(value);
    },
  };
  view.settle(pane);
  const scrollTo = (row: number) => {
    pane.scrollTop = row * ROW;
    return view.scrolled(pane);
  };
  /** The row at the top after something has changed. */
  const settled = () => {
    view.settle(pane);
    return pane.scrollTop / ROW;
  };
  return { log, say, wrap, rows, selection, view, pane, scrollTo, settled };
}

it("follows the end until a person scrolls up, and again once they are back", () => {
  const { say, view, scrollTo, settled } = tenRows();
  expect(settled()).toBe(990);
  say(["more", "and more"]);
  expect(settled()).toBe(992);
  expect(scrollTo(992)).toBe(false);
  expect(scrollTo(500)).toBe(true);
  expect(view.following).toBe(false);
  say(["more"]);
  expect(settled()).toBe(500);
  scrollTo(993);
  expect(view.following).toBe(true);
  say(["more"]);
  expect(settled()).toBe(994);
});

it("hears of a person who scrolled before the browser says so", () => {
  const { say, view, pane, settled } = tenRows();
  pane.scrollTop = 400 * ROW;
  say(["more"]);
  expect([settled(), view.following]).toEqual([400, false]);
});

it("follows the end of wrapped lines, too", () => {
  const { say, wrap, rows, settled } = tenRows();
  wrap.now = { columns: 5, before: 0 };
  expect(settled()).toBe(rows.total - 10);
  say(["a long line that wraps"]);
  expect(settled()).toBe(rows.total - 10);
});

it("keeps the first line that is seen when lines wrap and do not any more", () => {
  const { wrap, rows, scrollTo, settled } = tenRows();
  scrollTo(500);
  wrap.now = { columns: 5, before: 0 };
  expect(settled()).toBe(rows.start(500));
  expect(settled()).toBeGreaterThan(900);
  wrap.now = null;
  expect(settled()).toBe(500);
});

it("comes back after a search to the line that was seen, or selected while it was on", () => {
  const { log, selection, view, scrollTo, settled } = tenRows();
  scrollTo(500);
  log.search = "no line has this";
  expect([settled(), view.following]).toEqual([0, false]);
  log.search = "7";
  settled();
  log.search = "";
  expect(settled()).toBe(500);

  log.search = "77";
  settled();
  scrollTo(2);
  // Of 77, 177, 277, 377 and so on, the third below the top.
  const chosen = log.numberAt(5) ?? -1;
  selection.begin(chosen);
  selection.to(chosen);
  view.keep();
  log.search = "";
  expect(settled()).toBe(chosen - 3);
});

it("keeps what is read while old lines go", () => {
  const { say, log, scrollTo, settled } = tenRows();
  say(numbered(1000, MOST_LINES));
  settled();
  scrollTo(600);
  say(numbered(0, 100));
  expect(settled()).toBe(500);
  expect(log.numberAt(500)).toBe(600);
});

it("scrolls with a selection that keys make longer", () => {
  const { selection, view, pane, scrollTo } = tenRows();
  scrollTo(500);
  view.extend(pane, 1);
  expect([selection.head, pane.scrollTop / ROW]).toEqual([500, 500]);
  view.extend(pane, 20);
  expect([selection.head, pane.scrollTop / ROW]).toEqual([520, 511]);
  view.extend(pane, -Infinity);
  expect([selection.head, pane.scrollTop]).toEqual([0, 0]);
  expect(selection.count).toBe(501);
  selection.clear();
  view.extend(pane, -1);
  expect(selection.text(false)).toBe("line 9");
});
