import { expect, it } from "vitest";
import type { TerminalLink } from "../host";
import { MemoryHost } from "../host/memory";
import { AllShells, MOST_OPEN, MOST_SHELLS, type Shell, type Shells, type ShellScreen } from "./shells.svelte";

/** What stands for a place of the page, where there is no page. */
const PLACE = {} as HTMLElement;
const memory = () => new MemoryHost({ containers: 0, lines: 0, machine: "running" });
const numbers = (shells: Shells) => shells.open.map((shell) => shell.number);
const kinds = (shells: Shells) => shells.open.map(({ number, debug }) => [number, debug]);

/** Shells of a host that notes what becomes of each, by the order in which they began. */
function noted() {
  const told: string[] = [];
  const ends: ((began: boolean) => void)[] = [];
  const open = (kind: string, ended: (began: boolean) => void): Promise<TerminalLink> => {
    const at = ends.push(ended) - 1;
    told.push(`${at} ${kind}`);
    const link: TerminalLink = { type: (text) => told.push(`${at} typed ${text}`), resize: () => undefined, close: () => told.push(`${at} closed`) };
    return Promise.resolve(link);
  };
  const shells = new AllShells({
    openTerminal: (_id, _size, _seen, ended) => open("inside", ended),
    openDebugShell: (_id, _size, _seen, ended) => open("beside", ended),
    openMachineShell: (_size, _seen, ended) => open("machine", ended),
  });
  return { shells, told, ends };
}

/** Shows a shell; what was done to its screen, and how something is typed there. */
function shown(shell: Shell | undefined) {
  const done: string[] = [];
  let typed: (text: string) => void = () => undefined;
  const make = (): ShellScreen => {
    done.push("made");
    return {
      size: { columns: 80, rows: 24 },
      show: () => Promise.resolve(),
      hear: (heard) => (typed = heard),
      enter: () => done.push("entered"),
      leave: () => done.push("left"),
      dispose: () => done.push("disposed"),
    };
  };
  const enter = () => shell?.enter(PLACE, make);
  enter();
  return { done, enter, type: (text: string) => typed(text) };
}

const settled = () => new Promise((done) => setTimeout(done, 0));

it("shows a shell that is opened, and a neighbour of one that is closed", () => {
  const shells = new AllShells(memory()).enter("a");
  shells.add(false);
  shells.add(false);
  expect([numbers(shells), shells.shown]).toEqual([[1, 2, 3], 3]);
  shells.shown = 2;
  shells.close(2);
  expect([numbers(shells), shells.shown]).toEqual([[1, 3], 3]);
  shells.close(1);
  expect([numbers(shells), shells.shown]).toEqual([[3], 3]);
  shells.close(3);
  expect(numbers(shells)).toEqual([]);
});

it("gives no number twice, and opens no more in one container and in all than it may", () => {
  const all = new AllShells(memory());
  const shells = all.enter("a");
  shells.add(false);
  shells.close(1);
  shells.close(7);
  expect([numbers(shells), shells.shown]).toEqual([[2], 2]);
  for (let count = 0; count < 2 * MOST_SHELLS; count += 1) shells.add(count % 2 === 0);
  expect(shells.open.length).toBe(MOST_SHELLS);
  expect(new Set(numbers(shells)).size).toBe(MOST_SHELLS);
  expect([shells.full, all.full]).toEqual([true, false]);
  for (let count = 0; count < 2 * MOST_OPEN; count += 1) all.enter(`other ${count}`);
  expect([all.alive, all.full]).toEqual([MOST_OPEN, true]);
  const none = all.enter("one more");
  expect([numbers(none), none.full]).toEqual([[], true]);
  shells.close(2);
  none.add(false);
  expect(numbers(none)).toEqual([1]);
});

it("has a debug shell in a tab of its own, or instead of one that there is", async () => {
  const { shells, told, ends } = noted();
  const own = shells.enter("a");
  own.add(true);
  expect(kinds(own)).toEqual([[1, false], [2, true]]);
  const { enter } = shown(own.open[0]);
  await settled();
  ends[0]?.(false);
  expect(own.open[0]?.ended).toBe("nothing");
  own.turn(1);
  own.turn(7);
  enter();
  expect([kinds(own), own.shown, own.open[0]?.alive]).toEqual([[[1, true], [2, true]], 2, true]);
  expect(told).toEqual(["0 inside", "0 closed", "1 beside"]);
});

it("a shell goes on while its tab is left, with what it showed, and takes what is typed when it is back", async () => {
  const { shells, told } = noted();
  const own = shells.enter("a");
  const { done, enter, type } = shown(own.open[0]);
  type("ahead");
  await settled();
  own.open[0]?.leave();
  own.leave();
  expect([shells.aliveIn("a"), shells.aliveIn("b"), shells.alive]).toEqual([1, 0, 1]);
  expect(shells.enter("a").open).toEqual(own.open);
  enter();
  type("more");
  expect(done).toEqual(["made", "entered", "left", "entered"]);
  expect(told).toEqual(["0 inside", "0 typed ahead", "0 typed more"]);
});

it("one that ended while nobody looked still shows what it said, and is past once that was seen", async () => {
  const { shells, ends } = noted();
  const own = shells.enter("a");
  const { done } = shown(own.open[0]);
  await settled();
  own.leave();
  ends[0]?.(true);
  expect([shells.aliveIn("a"), numbers(shells.enter("a"))]).toEqual([0, [1]]);
  own.leave();
  expect([numbers(own), done.at(-1)]).toEqual([[], "disposed"]);
  expect(numbers(shells.enter("a"))).toEqual([2]);
});

it("shells end with their container, and not while it is paused; those of the machine with the window", async () => {
  const { shells, told } = noted();
  for (const id of ["a", "b", null]) shown(shells.enter(id).open[0]);
  await settled();
  shells.keep([{ id: "a", state: "paused" }, { id: "b", state: "running" }]);
  expect(shells.alive).toBe(3);
  shells.keep([{ id: "a", state: "exited" }, { id: "b", state: "running" }]);
  expect([shells.alive, told.filter((what) => what.endsWith("closed"))]).toEqual([2, ["0 closed"]]);
  shells.keep([]);
  expect(shells.aliveIn(null)).toBe(1);
  shells.end();
  expect(told.filter((what) => what.endsWith("closed"))).toEqual(["0 closed", "1 closed", "2 closed"]);
});

it("a shell whose tab is closed before it has come ends as soon as it is there", async () => {
  const { shells, told } = noted();
  const own = shells.enter("a");
  shown(own.open[0]);
  own.close(1);
  await settled();
  expect(told).toEqual(["0 inside", "0 closed"]);
});
