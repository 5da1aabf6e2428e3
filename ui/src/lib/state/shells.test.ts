import { expect, it } from "vitest";
import { MOST_SHELLS, Shells } from "./shells.svelte";

const numbers = (shells: Shells) => shells.open.map((shell) => shell.number);

it("shows a shell that is opened, and a neighbour of one that is closed", () => {
  const shells = new Shells();
  shells.add(false);
  shells.add(false);
  expect([numbers(shells), shells.shown]).toEqual([[1, 2, 3], 3]);
  shells.shown = 2;
  shells.close(2);
  expect([numbers(shells), shells.shown]).toEqual([[1, 3], 3]);
  shells.close(3);
  expect([numbers(shells), shells.shown]).toEqual([[1], 1]);
});

it("gives no number twice, keeps one shell, and opens no more than it may", () => {
  const shells = new Shells();
  shells.close(1);
  expect(numbers(shells)).toEqual([1]);
  shells.add(false);
  shells.close(1);
  shells.close(7);
  expect([numbers(shells), shells.shown]).toEqual([[2], 2]);
  for (let count = 0; count < 2 * MOST_SHELLS; count += 1) shells.add(count % 2 === 0);
  expect(shells.open.length).toBe(MOST_SHELLS);
  expect(new Set(numbers(shells)).size).toBe(MOST_SHELLS);
  expect(shells.full).toBe(true);
});

it("has a debug shell in a tab of its own, or instead of one that there is", () => {
  const shells = new Shells();
  shells.add(true);
  expect(shells.open).toEqual([{ number: 1, debug: false }, { number: 2, debug: true }]);
  shells.turn(1);
  shells.turn(7);
  expect(shells.open).toEqual([{ number: 1, debug: true }, { number: 2, debug: true }]);
  expect(shells.shown).toBe(2);
});
