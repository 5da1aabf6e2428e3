import { flushSync } from "svelte";
import { afterEach, expect, it, vi } from "vitest";
import type { Failure, MachineView } from "../host";
import { MemoryHost } from "../host/memory";
import { all, buttons, memory, mounted, one, press, words } from "../mounted";
import { Machine } from "../state/machine.svelte";
import { Tasks } from "../state/tasks.svelte";
import Covered from "./Covered.svelte";

afterEach(() => void vi.useRealTimers());

/** What covers a screen while the machine is like this. */
function covered(change: Partial<MachineView>, away: Failure | null = null) {
  const host = memory();
  const machine = new Machine(host, new Tasks());
  machine.follow()();
  if (machine.view === null) throw new Error("there is no machine");
  const checks = vi.spyOn(host, "checks");
  [machine.view, machine.away] = away === null ? [{ ...machine.view, ...change }, null] : [null, away];
  return { page: mounted(Covered, { host, machine }), checks };
}

it("a stopped machine can be started, and what may keep it from that is said before", async () => {
  const { page } = covered({ phase: "stopped" });
  expect(words(one(page, "h1"))).toBe("The machine is stopped");
  expect(words(one(page, "h1 + p"))).toBe("Containers, images and volumes are kept. They show once the machine runs.");
  expect([buttons(page), all(page, "code")]).toEqual([["Start the machine"], ["cove start"]]);
  await expect.poll(() => all(page, ".check b")).toEqual(["hardware virtualisation"]);
});

it("a machine with a name of its own is started by that", () => {
  const { page } = covered({ phase: "stopped", name: "dev" });
  expect(all(page, "code")).toEqual(["cove start --machine dev"]);
});

it("a paused machine goes on", () => {
  const { page } = covered({ phase: "paused" });
  expect([words(one(page, "h1")), buttons(page)]).toEqual(["The machine is paused", ["Resume"]]);
});

it("a start that somebody else asked for shows its stage and the last ones' times, and nothing to press", () => {
  const { page, checks } = covered({ phase: "starting", stage: "Starting the engine" });
  expect([words(one(page, "h1")), words(one(page, ".way p"))]).toEqual(["The machine is starting", "Starting the engine"]);
  expect(one(page, "progress").hasAttribute("value")).toBe(false);
  expect(all(page, "li > .grow")).toEqual(["kernel", "data-disk", "containerd", "dockerd"]);
  expect([buttons(page), checks.mock.calls.length]).toEqual([[], 0]);
});

it("a stop shows no stages of a start", () => {
  const { page } = covered({ phase: "stopping" });
  expect([words(one(page, "h1")), all(page, "li"), buttons(page)]).toEqual(["The machine is stopping", [], []]);
  one(page, "progress");
});

it("a machine that failed says why, what to do and its last words, and its kind only where the headline does not", () => {
  const failure: Failure = { message: "the kernel panicked", hint: "See its console.", kind: "machine_failed" };
  const { page } = covered({ phase: "failed", failure, consoleTail: ["VFS: cannot mount", "panic"] });
  expect([words(one(page, "h1")), words(one(page, ".bad")), words(one(page, ".bad + p"))]).toEqual(["The machine failed", "the kernel panicked", "See its console."]);
  expect(one(page, "pre").textContent).toBe("VFS: cannot mount\npanic");
  expect(buttons(page)).toEqual(["Start the machine"]);
  const full = covered({ phase: "failed", failure: { message: "the disk cannot grow", hint: "", kind: "disk_full" } }).page;
  expect([words(one(full, ".bad")), full.querySelector("pre")]).toEqual(["There is no space left. the disk cannot grow", null]);
});

it("a daemon that is away says why and is asked for nothing, which would start it", () => {
  const { page, checks } = covered({}, { message: "it was stopped", hint: "Start it.", kind: "daemon_away" });
  expect([words(one(page, "h1")), words(one(page, ".bad")), buttons(page)]).toEqual(["Cove's daemon does not run", "it was stopped", ["Start the machine"]]);
  expect(checks).not.toHaveBeenCalled();
});

it("a start from here goes through its stages; one that is refused says so and can be tried again", async () => {
  vi.useFakeTimers();
  const pass = async (ms: number) => {
    await vi.advanceTimersByTimeAsync(ms);
    flushSync();
  };
  const host = new MemoryHost({ containers: 0, lines: 0, machine: "stopped" });
  const machine = new Machine(host, new Tasks());
  const stop = machine.follow();
  const page = mounted(Covered, { host, machine });
  const start = vi.spyOn(host, "startMachine").mockRejectedValueOnce(new Error("there is no image"));
  press(page, "Start the machine");
  await pass(0);
  expect(all(page, ".bad")).toEqual(["there is no image"]);
  press(page, "Start the machine");
  expect([one(page, "progress").getAttribute("value"), words(one(page, ".way p"))]).toEqual(["0.1", "Booting the kernel"]);
  await pass(30);
  expect([one(page, "progress").getAttribute("value"), buttons(page), page.querySelector(".bad")]).toEqual(["0.5", [], null]);
  await pass(100);
  expect(words(one(page, "h1"))).toBe("The machine is running");
  expect(start).toHaveBeenCalledTimes(2);
  stop();
});
