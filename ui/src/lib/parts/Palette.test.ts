import { flushSync } from "svelte";
import { beforeEach, expect, it, vi } from "vitest";
import { MemoryHost } from "../host/memory";
import { all, fill, mounted, one, strike, words } from "../mounted";
import { Containers } from "../state/containers.svelte";
import { Engine } from "../state/engine.svelte";
import { Images } from "../state/images.svelte";
import { Machine } from "../state/machine.svelte";
import { networkList } from "../state/networks.svelte";
import { Projects } from "../state/projects.svelte";
import { Tasks } from "../state/tasks.svelte";
import { Volumes } from "../state/volumes.svelte";
import { Welcome } from "../state/welcome.svelte";
import Palette from "./Palette.svelte";

beforeEach(() => (location.hash = ""));

function palette(phase = "running") {
  const host = new MemoryHost({ containers: 14, lines: 0, machine: phase });
  const tasks = new Tasks();
  const [machine, containers, engine] = [new Machine(host, tasks), new Containers(host, tasks), new Engine(host)];
  machine.follow()();
  containers.follow()();
  const [start, stop, toggle, help, close] = [vi.fn(), vi.fn(), vi.fn(), vi.fn(), vi.fn()];
  const page = mounted(
    Palette,
    {
      machine,
      containers,
      images: new Images(host, tasks),
      volumes: new Volumes(host, tasks),
      networks: networkList(host),
      projects: new Projects(host, tasks),
      welcome: new Welcome(host, tasks, containers),
      start,
      stop,
      tasks: toggle,
      help,
      close,
    },
    engine,
  );
  const field = one<HTMLInputElement>(page, "input");
  return {
    page,
    host,
    containers,
    engine,
    start,
    stop,
    close,
    entries: () => all(page, "[role=option] > .grow"),
    /** The entry that Enter takes, as it is told to whoever hears it. */
    chosen: () => words(page.querySelector(`#${field.getAttribute("aria-activedescendant")}[aria-selected=true] > .grow`)),
    type: (text: string) => fill(page, "Go to or do…", text),
    strike: (key: string) => strike(field, key),
  };
}

it("arrows go round, and Enter goes there and closes it", () => {
  const { chosen, entries, strike, close } = palette();
  const last = entries().at(-1);
  expect(chosen()).toBe("Run a container");
  expect(strike("ArrowUp")).toBe(false);
  expect(chosen()).toBe(last);
  strike("ArrowDown");
  strike("ArrowDown");
  expect(chosen()).toBe("Build an image");
  strike("Enter");
  expect(location.hash).toBe("#/builds/new");
  expect(close).toHaveBeenCalled();
});

it("what is typed begins again at the first, and where nothing is found there is nothing to take", () => {
  const { page, chosen, entries, strike, type, close } = palette();
  strike("ArrowDown");
  strike("ArrowDown");
  type("shop-db");
  expect(chosen()).toBe("shop-db-1");
  type("shop-db logs");
  expect([entries(), chosen()]).toEqual([["Logs: shop-db-1"], "Logs: shop-db-1"]);
  type("no such thing");
  expect([entries(), one(page, "input").hasAttribute("aria-activedescendant")]).toEqual([[], false]);
  for (const key of ["ArrowDown", "ArrowUp"]) strike(key);
  expect(strike("Enter")).toBe(true);
  expect([location.hash, close.mock.calls.length]).toEqual(["", 0]);
});

it("offers of the machine what can be done with it now, and of the engine nothing while it does not run", async () => {
  const running = palette();
  running.type("cove st");
  expect(running.entries()).toEqual(["Stop the machine"]);
  running.strike("Enter");
  expect(running.stop).toHaveBeenCalledOnce();
  const stopped = palette("stopped");
  stopped.type("cove st");
  expect(stopped.entries()).toEqual(["Start the machine"]);
  stopped.type("shop");
  expect(stopped.entries()).toEqual([]);
  const starting = palette("starting");
  starting.type("cove st");
  expect(starting.entries()).toEqual([]);
});

it("finds what the engine has once it has told it", async () => {
  const { type, entries } = palette();
  type("volume old");
  await expect.poll(entries).toEqual(["old-cache", "Remove: old-cache"]);
});

it("of a lost engine's containers only places are offered", () => {
  const { type, entries, engine } = palette();
  type("scratch-13");
  expect(entries()).toEqual(["scratch-13", "Stop: scratch-13", "Restart: scratch-13", "Pause: scratch-13", "Logs: scratch-13", "Terminal: scratch-13", "Files: scratch-13"]);
  engine.lost = { message: "cannot reach the engine", hint: "" };
  flushSync();
  expect(entries()).toEqual(["scratch-13", "Logs: scratch-13", "Terminal: scratch-13", "Files: scratch-13"]);
  type("welcome");
  expect(entries()).toEqual([]);
});

it("where the list becomes shorter, its last entry is the chosen one", async () => {
  const { host, containers, type, entries, chosen, strike } = palette();
  const stop = containers.follow();
  type("shop-cache");
  expect(entries()).toHaveLength(7);
  strike("ArrowUp");
  expect(chosen()).toBe("Files: shop-cache-1");
  await host.act("pause", containers.rows?.find((row) => row.name === "shop-cache-1")?.id ?? "");
  flushSync();
  expect([entries().length, chosen()]).toEqual([5, "Files: shop-cache-1"]);
  stop();
});
