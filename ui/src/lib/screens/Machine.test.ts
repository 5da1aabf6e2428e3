import { flushSync } from "svelte";
import { expect, it, vi } from "vitest";
import type { Failure, MachineView } from "../host";
import { all, buttons, memory, mounted, one, press, words } from "../mounted";
import { Containers } from "../state/containers.svelte";
import { Images } from "../state/images.svelte";
import { Machine } from "../state/machine.svelte";
import { Usage } from "../state/machine-usage.svelte";
import { SettingsForm } from "../state/settings.svelte";
import { AllShells } from "../state/shells.svelte";
import { Tasks } from "../state/tasks.svelte";
import MachineScreen from "./Machine.svelte";

const PLACE = { screen: "machine", item: null, tab: null } as const;

function screen(change: Partial<MachineView>, away: Failure | null = null, count = 0) {
  const [host, tasks] = [memory(count), new Tasks()];
  const [machine, containers] = [new Machine(host, tasks), new Containers(host, tasks)];
  machine.follow()();
  containers.follow()();
  if (machine.view === null) throw new Error("there is no machine");
  [machine.view, machine.away] = away === null ? [{ ...machine.view, ...change }, null] : [null, away];
  const stop = vi.spyOn(host, "stopMachine");
  const usage = new Usage(host, tasks);
  const page = mounted(MachineScreen, { host, machine, usage, containers, images: new Images(host, tasks), settings: new SettingsForm(host), shells: new AllShells(host), tasks, unsaved: () => [], switched: () => undefined, place: PLACE });
  return { page, machine, usage, stop, headline: () => all(page, "h2")[0], offers: () => buttons(one(page, "header")) };
}

it("offers in each state what can be done in it", () => {
  const offers = (["stopped", "starting", "running", "paused", "stopping", "failed"] as const).map((phase) => {
    const { headline, offers } = screen({ phase });
    return [headline(), ...offers()];
  });
  expect(offers).toEqual([
    ["The machine is stopped", "Start the machine", "Copy cove start"],
    ["The machine is starting"],
    ["The machine is running", "Restart", "Copy cove restart", "Stop the machine", "Copy cove stop"],
    ["The machine is paused", "Resume the machine", "Copy cove resume", "Stop the machine", "Copy cove stop"],
    ["The machine is stopping"],
    ["The machine failed", "Start the machine", "Copy cove start"],
  ]);
});

it("a daemon that is away says why, what to do, and nothing of a machine that nobody knows", () => {
  const { page, headline, offers } = screen({}, { message: "it was stopped", hint: "Start it.", kind: "daemon_away" });
  expect([headline(), words(one(page, ".bad")), words(one(page, ".bad + p")), offers()]).toEqual(["Cove's daemon does not run", "it was stopped", "Start it.", ["Start the machine", "Copy cove start"]]);
  expect(page.querySelector("dl")).toBeNull();
});

it("a stage that is under way shows only while it is", () => {
  const { page, machine } = screen({ phase: "starting", stage: "Starting the engine" });
  expect(words(one(page, ".step p"))).toBe("Starting the engine");
  if (machine.view !== null) machine.view = { ...machine.view, phase: "running" };
  flushSync();
  expect(page.querySelector(".step")).toBeNull();
});

it("a failure and what the daemon has to say stand above what the machine has", () => {
  const { page } = screen({ phase: "failed", failure: { message: "the kernel panicked", hint: "See its console.", kind: "machine_failed" }, notices: ["KVM is not used: it failed."], uptimeS: null });
  expect([words(one(page, ".bad")), words(one(page, ".bad + p")), words(one(page, "p + p + .quiet"))]).toEqual(["the kernel panicked", "See its console.", "KVM is not used: it failed."]);
  expect(all(page, "dt")).toEqual(["Backend", "Engine", "CPU", "Memory", "Disk"]);
});

it("how busy its processors are stands beside their number, while it runs and that is known", () => {
  const { page, machine, usage } = screen({ phase: "running", cpus: 3 });
  expect(all(page, "dd")).toContain("3");
  usage.load = 0.246;
  flushSync();
  expect(all(page, "dd")).toContain("3 · 25 % busy");
  if (machine.view !== null) machine.view = { ...machine.view, phase: "stopped" };
  flushSync();
  expect(all(page, "dd")).toContain("3");
});

it("the stages of the last start are drawn where they were in it", () => {
  const { page } = screen({ phase: "running", timings: [{ name: "spawn", startUs: 0, endUs: 1_000_000 }, { name: "kernel", startUs: 1_000_000, endUs: 4_000_000 }] });
  const bars = [...page.querySelectorAll<HTMLElement>(".span")].map(({ style }) => [style.marginLeft, style.width]);
  expect([bars, all(page, ".time")]).toEqual([[["0%", "25%"], ["25%", "75%"]], ["1.00 s", "3.00 s"]]);
  expect(screen({ phase: "stopped", timings: [] }).page.querySelector(".stages")).toBeNull();
});

it("a stop is asked about where containers run, and only there", () => {
  const empty = screen({ phase: "running" });
  press(empty.page, "Stop the machine");
  expect([empty.page.querySelector("dialog"), empty.stop.mock.calls.length]).toEqual([null, 1]);
  const { page, stop } = screen({ phase: "running" }, null, 14);
  press(page, "Stop the machine");
  expect(words(one(page, "dialog p"))).toBe("Stop the machine? Running containers stop with it (11).");
  press(one(page, "dialog"), "Cancel");
  expect([page.querySelector("dialog"), stop.mock.calls.length]).toEqual([null, 0]);
  press(page, "Stop the machine");
  press(one(page, "dialog"), "Stop");
  expect(stop).toHaveBeenCalledOnce();
});
