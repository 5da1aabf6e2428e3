import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { MemoryHost } from "../host/memory";
import { Engine, GRACE } from "./engine.svelte";
import { networkList } from "./networks.svelte";

const BROKE = { message: "the connection to the engine broke", hint: "" };
const REFUSED = { message: "cannot reach the engine", hint: "" };

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function followed() {
  const host = new MemoryHost({ containers: 7, lines: 0, machine: "running" });
  const engine = new Engine(host);
  return { host, engine, stop: engine.follow() };
}

it("an engine that is lost is told of after a moment, whatever it says meanwhile, and until it answers", () => {
  const { host, engine, stop } = followed();
  host.loseEngine(BROKE);
  vi.advanceTimersByTime(GRACE / 2);
  host.loseEngine(REFUSED);
  expect(engine.lost).toBeNull();
  vi.advanceTimersByTime(GRACE / 2);
  expect(engine.lost).toEqual(REFUSED);
  host.loseEngine(BROKE);
  expect(engine.lost).toEqual(BROKE);
  host.loseEngine(null);
  expect(engine.lost).toBeNull();
  stop();
});

it("an engine that is there again at once, or that nobody follows any more, is not told of", () => {
  const { host, engine, stop } = followed();
  host.loseEngine(BROKE);
  vi.advanceTimersByTime(GRACE / 2);
  host.loseEngine(null);
  vi.advanceTimersByTime(2 * GRACE);
  expect(engine.lost).toBeNull();
  // What was read meanwhile is read again all the same.
  expect(engine.returns).toBe(1);
  host.loseEngine(BROKE);
  stop();
  vi.advanceTimersByTime(2 * GRACE);
  expect(engine.lost).toBeNull();
});

it("a list that the engine did not tell stays as it was, and is read again until it is told", async () => {
  const host = new MemoryHost({ containers: 7, lines: 0, machine: "running" });
  const list = networkList(host);
  const stop = list.follow();
  await vi.advanceTimersByTimeAsync(0);
  const before = list.rows;
  expect(before?.length).toBeGreaterThan(0);
  const read = list.source.read;
  list.source.read = () => Promise.reject(new Error("no luck"));
  await list.refresh();
  expect([list.unread?.message, list.rows]).toEqual(["no luck", before]);
  list.source.read = read;
  await vi.advanceTimersByTimeAsync(10_000);
  expect([list.unread, list.readings]).toEqual([null, 2]);
  stop();
});

it("what a list that was first opened while the engine was lost says of it is gone as soon as it answers", async () => {
  const host = new MemoryHost({ containers: 7, lines: 0, machine: "running" });
  host.loseEngine(BROKE);
  const list = networkList(host);
  const { read } = list.source;
  // The reading that is under way when it answers again had asked the one that was lost.
  let fail: (why: Error) => void = () => undefined;
  list.source.read = () => new Promise((_, failed) => (fail = failed));
  const stop = list.follow();
  fail(new Error("no luck"));
  await vi.advanceTimersByTimeAsync(0);
  expect([list.rows, list.unread?.message]).toEqual([null, "no luck"]);
  await vi.advanceTimersByTimeAsync(3000);
  host.loseEngine(null);
  expect(list.unread).toBeNull();
  list.source.read = read;
  fail(new Error("no luck again"));
  await vi.advanceTimersByTimeAsync(0);
  expect(list.unread).toBeNull();
  expect(list.rows?.length).toBeGreaterThan(0);
  stop();
});

it("a list is read anew when the engine is there again", async () => {
  const host = new MemoryHost({ containers: 7, lines: 0, machine: "running" });
  const list = networkList(host);
  const stop = list.follow();
  await vi.advanceTimersByTimeAsync(0);
  host.loseEngine(BROKE);
  await list.refresh();
  expect(list.unread?.message).toBe(BROKE.message);
  host.loseEngine(null);
  await vi.advanceTimersByTimeAsync(0);
  expect(list.unread).toBeNull();
  expect(list.readings).toBeGreaterThan(1);
  stop();
});
