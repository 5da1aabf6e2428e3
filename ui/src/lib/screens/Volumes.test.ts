import { flushSync } from "svelte";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { HostError } from "../host";
import { all, buttons, control, dismiss, fill, memory, mounted, one, press, words } from "../mounted";
import { Engine } from "../state/engine.svelte";
import { Tasks } from "../state/tasks.svelte";
import { Volumes } from "../state/volumes.svelte";
import VolumesScreen from "./Volumes.svelte";

const PLACE = { screen: "volumes", item: null, tab: null } as const;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

async function pass(ms: number) {
  await vi.advanceTimersByTimeAsync(ms);
  flushSync();
}

/** The screen, as what all lists of the engine have in common shows there. */
function screen(host = memory(8)) {
  const engine = new Engine(host);
  const stop = engine.follow();
  const page = mounted(VolumesScreen, { volumes: new Volumes(host, new Tasks()), place: PLACE }, engine);
  return {
    host,
    page,
    stop,
    rows: () => all(page, "tbody .who"),
    /** What stands in place of rows. */
    instead: () => all(page, ".centre"),
    alert: () => all(page, "[role=alert]"),
    notice: () => words(one(page, "#engine-notice")),
  };
}

it("a list is being read, says so when that takes long, and then is there", async () => {
  const host = memory(8);
  const read = vi.spyOn(host, "volumes").mockReturnValue(new Promise(() => undefined));
  const slow = screen(host);
  expect(slow.instead()).toEqual(["Reading…"]);
  await pass(5000);
  expect(slow.instead()).toEqual(["No answer yet. It shows here as soon as there is one."]);
  read.mockRestore();
  const { rows, instead } = screen();
  await pass(0);
  expect([rows(), instead()]).toEqual([["shop_data", "blog_data", "old-cache"], []]);
});

it("an empty list and a search without a hit are not the same", async () => {
  const empty = screen(memory(0));
  await pass(0);
  expect(empty.instead()).toEqual(["Nothing here yet"]);
  const { page, instead, rows } = screen();
  await pass(0);
  fill(page, "Search", "shop");
  expect(rows()).toEqual(["shop_data"]);
  fill(page, "Search", "shop blog");
  expect(instead()).toEqual(["Nothing matches"]);
  fill(page, "Search", "");
  press(page, "Unused");
  expect(rows()).toEqual(["old-cache"]);
});

it("a list that was never read says why, and is read again by itself", async () => {
  const host = memory(8);
  vi.spyOn(host, "volumes").mockRejectedValueOnce(new HostError("permission denied", "See the engine's log.", null, "engine_refused"));
  const { alert, instead, rows } = screen(host);
  await pass(0);
  expect([alert(), instead(), rows()]).toEqual([["The engine refused it. permission denied See the engine's log."], [], []]);
  await pass(3000);
  expect([alert(), rows().length]).toEqual([[], 3]);
});

it("a list that was read before stays, and says that it is what was last known", async () => {
  const { host, alert, rows, page } = screen();
  await pass(0);
  vi.spyOn(host, "volumes").mockRejectedValueOnce(new HostError("permission denied"));
  await host.createVolume("new", []);
  await pass(0);
  expect(alert()).toEqual(["permission denied What shows here is what was last known. It is read again by itself."]);
  expect([rows().length, page.querySelector(".last-known") !== null]).toEqual([3, true]);
  await pass(3000);
  expect([alert(), rows().length, page.querySelector(".last-known")]).toEqual([[], 4, null]);
});

it("while the engine is lost the list stays, nothing that it would do is offered, and it comes back by itself", async () => {
  const { host, page, rows, alert, notice, stop } = screen();
  await pass(0);
  press(page, "Select old-cache");
  expect(buttons(page)).toEqual(["Unused", "Restore", "Create", "Remove", "Cancel", "Name", "Size"]);
  host.loseEngine({ message: "the connection broke", hint: "It may come back.", kind: "engine_away" });
  await pass(1000);
  expect(notice()).toBe("The engine does not answer. What shows here is what was last known. It is read again by itself. the connection broke It may come back.");
  expect([rows().length, alert(), buttons(page)]).toEqual([3, [], ["Unused", "Cancel", "Name", "Size"]]);
  host.loseEngine(null);
  await pass(0);
  expect([notice(), buttons(page)]).toEqual(["", ["Unused", "Restore", "Create", "Remove", "Cancel", "Name", "Size"]]);
  stop();
});

it("all that is shown is selected together, and what is not shown is not", async () => {
  const { page } = screen();
  await pass(0);
  const box = control<HTMLInputElement>(page, "Select all");
  fill(page, "Search", "_data");
  press(page, "Select all");
  expect([words(one(page, ".bulk .grow")), box.checked]).toEqual(["2 selected", true]);
  fill(page, "Search", "");
  expect(box.checked).toBe(false);
  press(page, "Select all");
  expect(words(one(page, ".bulk .grow"))).toBe("3 selected");
  press(page, "Select all");
  expect(page.querySelector(".bulk")).toBeNull();
});

it("removing names what is lost and how much that is, and is refused where containers use it", async () => {
  const { page, rows } = screen();
  await pass(0);
  press(page, "Select old-cache");
  press(page, "Remove");
  expect(words(one(page, "h2"))).toBe("Remove old-cache? All files in them are lost (118 MiB).");
  expect(words(one(page, "dialog code"))).toBe("docker volume rm old-cache");
  dismiss(page);
  expect(page.querySelector("dialog")).toBeNull();
  press(page, "Select shop_data");
  press(page, "Remove");
  expect(words(one(page, "h2"))).toBe("shop_data cannot be removed, because containers use them: shop-db-1.");
  expect(control(one(page, "dialog"), "Remove").disabled).toBe(true);
  dismiss(page);
  press(page, "Select shop_data");
  press(page, "Remove");
  press(one(page, "dialog"), "Remove");
  await pass(0);
  expect([rows(), page.querySelector("dialog")]).toEqual([["shop_data", "blog_data"], null]);
});

it("what was not counted yet is not said to be nothing", async () => {
  const host = memory(8);
  vi.spyOn(host, "volumeSizes").mockReturnValue(new Promise(() => undefined));
  const { page } = screen(host);
  await pass(0);
  press(page, "Select old-cache");
  press(page, "Remove");
  expect(words(one(page, "h2"))).toBe("Remove old-cache? All files in them are lost (how much is not counted yet).");
});

it("a name that is taken, or that is none, makes no volume", async () => {
  const { page, rows } = screen();
  await pass(0);
  press(page, "Create");
  const dialog = one(page, "dialog");
  expect(control(dialog, "Create").disabled).toBe(true);
  fill(dialog, "Name", "old-cache");
  expect([words(one(dialog, "[role=alert]")), control(dialog, "Create").disabled]).toEqual(["`old-cache` is taken", true]);
  fill(dialog, "Name", "-no");
  expect([dialog.querySelector("[role=alert]"), control(dialog, "Create").disabled]).toEqual([null, true]);
  fill(dialog, "Name", "data");
  fill(dialog, "Labels", "tier=db\n=nothing\nnote=two words");
  expect(words(one(dialog, "code"))).toBe("docker volume create --label tier=db --label 'note=two words' data");
  press(dialog, "Create");
  await pass(0);
  expect([rows().includes("data"), page.querySelector("dialog")]).toEqual([true, null]);
});
