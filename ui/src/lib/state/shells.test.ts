import { expect, it } from "vitest";
import { MOST_SHELLS, Shells } from "./shells.svelte";

it("shows a shell that is opened, and a neighbour of one that is closed", () => {
  const shells = new Shells();
  shells.add();
  shells.add();
  expect([shells.open, shells.shown]).toEqual([[1, 2, 3], 3]);
  shells.shown = 2;
  shells.close(2);
  expect([shells.open, shells.shown]).toEqual([[1, 3], 3]);
  shells.close(3);
  expect([shells.open, shells.shown]).toEqual([[1], 1]);
});

it("gives no number twice, keeps one shell, and opens no more than it may", () => {
  const shells = new Shells();
  shells.close(1);
  expect(shells.open).toEqual([1]);
  shells.add();
  shells.close(1);
  shells.close(7);
  expect([shells.open, shells.shown]).toEqual([[2], 2]);
  for (let count = 0; count < 2 * MOST_SHELLS; count += 1) shells.add();
  expect(shells.open.length).toBe(MOST_SHELLS);
  expect(new Set(shells.open).size).toBe(MOST_SHELLS);
  expect(shells.full).toBe(true);
});
