import { expect, it } from "vitest";
import { Known } from "./known.svelte";

it("what was known of a thing stays while it is read anew, and nothing of it is another one's", async () => {
  const known = new Known<number>();
  await known.read("a", Promise.resolve(1));
  let answer: (value: number) => void = () => undefined;
  const reading = known.read("a", new Promise((done) => (answer = done)));
  expect([known.value("a"), known.value("b")]).toEqual([1, null]);
  answer(2);
  await reading;
  expect(known.value("a")).toBe(2);
  const other = known.read("b", Promise.resolve(3));
  expect([known.value("a"), known.value("b")]).toEqual([null, null]);
  await other;
  expect(known.value("b")).toBe(3);
});

it("of two readings the older counts no more, whichever comes last, and a failure leaves what was known", async () => {
  const known = new Known<number>();
  let answer: (value: number) => void = () => undefined;
  const slow = known.read("a", new Promise((done) => (answer = done)));
  await known.read("a", Promise.resolve(2));
  answer(1);
  await slow;
  expect(known.value("a")).toBe(2);
  await known.read("a", Promise.reject(new Error("it broke")));
  expect([known.value("a"), known.failure("a")?.message]).toEqual([2, "it broke"]);
  await known.read("a", Promise.resolve(4));
  expect([known.value("a"), known.failure("a")]).toEqual([4, null]);
});
