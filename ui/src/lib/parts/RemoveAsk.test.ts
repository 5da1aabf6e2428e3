import { flushSync } from "svelte";
import { afterEach, expect, it, vi } from "vitest";
import { type ContainerRow, HostError } from "../host";
import { all, buttons, dismiss, memory, mounted, one, press, words } from "../mounted";
import { Engine } from "../state/engine.svelte";
import RemoveAsk from "./RemoveAsk.svelte";

afterEach(() => void vi.useRealTimers());

function rowsOf(host: ReturnType<typeof memory>): readonly ContainerRow[] {
  let rows: readonly ContainerRow[] = [];
  host.watchContainers((found) => (rows = found))();
  return rows;
}

/** Asks about the containers of these names. */
function asked(names: readonly string[], host = memory()) {
  const ids = rowsOf(host).flatMap((row) => (names.includes(row.name) ? [row.id] : []));
  const done = vi.fn();
  const engine = new Engine(host);
  return { page: mounted(RemoveAsk, { host, ids, done }, engine), done, engine };
}

it("names those that run and the volumes that go with them", async () => {
  const { page, done } = asked(["shop-cache-1", "scratch-6"]);
  await expect.poll(() => all(page, "p")).toEqual([
    "Remove shop-cache-1, scratch-6? Files written inside are lost; named volumes and mounted folders stay.",
    "Still running, and killed: shop-cache-1",
    "Volumes without a name are lost with them (1):",
  ]);
  expect(all(page, "li")).toEqual(["shop-cache-1:/data"]);
  expect(buttons(page)).toEqual(["Copy command", "Cancel", "Remove 2"]);
  press(page, "Remove 2");
  expect(done.mock.calls).toEqual([[true]]);
});

it("speaks of no loss where there is none, and takes Escape for a no", async () => {
  const { page, done } = asked(["scratch-6"]);
  await expect.poll(() => buttons(page)).toEqual(["Copy command", "Cancel", "Remove"]);
  expect(page.querySelector(".bad")).toBeNull();
  dismiss(page);
  press(page, "Cancel");
  expect(done.mock.calls).toEqual([[false], [false]]);
});

it("names five of many, and draws eight of their volumes", async () => {
  const host = memory();
  vi.spyOn(host, "removals").mockResolvedValue(
    Array.from({ length: 9 }, (_, at) => ({ id: `${at}`, name: `c${at}`, running: at < 6, volumes: [`/v${at}`] })),
  );
  const { page } = asked([], host);
  await expect.poll(() => all(page, "p")).toEqual([
    "Remove c0, c1, c2, c3, c4 + 4? Files written inside are lost; named volumes and mounted folders stay.",
    "Still running, and killed: c0, c1, c2, c3, c4 + 1",
    "Volumes without a name are lost with them (9):",
  ]);
  expect(all(page, "li")).toHaveLength(8);
});

it("offers no removing before it is known what goes, and says when that takes long", async () => {
  vi.useFakeTimers();
  const host = memory();
  vi.spyOn(host, "removals").mockReturnValue(new Promise(() => undefined));
  const { page } = asked([], host);
  expect([words(one(page, "p")), buttons(page)]).toEqual(["Reading…", ["Cancel"]]);
  vi.advanceTimersByTime(5000);
  flushSync();
  expect(words(one(page, "p"))).toBe("No answer yet. It shows here as soon as there is one.");
});

it("removes nothing whose loss cannot be told, or that has gone meanwhile", async () => {
  const host = memory();
  vi.spyOn(host, "removals").mockRejectedValue(new HostError("cannot reach the engine", "", null, "engine_away"));
  const failed = asked([], host).page;
  await expect.poll(() => words(one(failed, "p"))).toBe("The engine does not answer. cannot reach the engine");
  expect(buttons(failed)).toEqual(["Cancel"]);
  const gone = asked(["no-such"]).page;
  await expect.poll(() => words(gone)).toContain("Remove ?");
  expect(buttons(gone)).toEqual(["Cancel"]);
});

it("waits for an engine that is lost", async () => {
  const { page, engine } = asked(["scratch-6"]);
  await expect.poll(() => buttons(page)).toContain("Remove");
  engine.lost = { message: "cannot reach the engine", hint: "" };
  flushSync();
  expect(buttons(page)).toEqual(["Copy command", "Cancel"]);
  engine.lost = null;
  flushSync();
  expect(buttons(page)).toEqual(["Copy command", "Cancel", "Remove"]);
});
