import { flushSync } from "svelte";
import { expect, it, onTestFinished, vi } from "vitest";
import { buttons, memory, mounted, one, press, words } from "../mounted";
import { Machine } from "../state/machine.svelte";
import { AllShells } from "../state/shells.svelte";
import { Tasks } from "../state/tasks.svelte";
import MachineList from "./MachineList.svelte";

async function screen() {
  const [host, tasks] = [memory(0), new Tasks()];
  await host.createMachine({ name: "build", cpus: null, memoryMib: null, diskGib: null });
  const machine = new Machine(host, tasks);
  onTestFinished(machine.follow());
  const shells = new AllShells(host);
  const [lost, switched] = [[] as string[], vi.fn<() => void>()];
  const page = mounted(MachineList, { host, machine, tasks, shells, unsaved: () => lost, switched });
  await expect.poll(() => buttons(page)).toContain("Show build");
  return { host, machine, page, tasks, shells, lost, switched };
}

it("machines are read anew with each news, and not from a daemon that was stopped", async () => {
  const { host, machine, page } = await screen();
  const read = vi.spyOn(host, "machines");
  const view = machine.view;
  [machine.view, machine.away] = [null, { message: "the Cove daemon has ended", hint: "" }];
  flushSync();
  expect([read.mock.calls.length, buttons(page).includes("Show build")]).toEqual([0, true]);
  [machine.view, machine.away] = [view, null];
  flushSync();
  expect(read.mock.calls.length).toBe(1);
});

it("another machine is shown without a question where nothing ends with what is shown now", async () => {
  const { page, switched } = await screen();
  press(page, "Show build");
  await expect.poll(() => switched.mock.calls.length).toBe(1);
  expect(page.querySelector("dialog")).toBeNull();
});

it("tasks and shells that end and what was typed and not saved are named before another machine is shown", async () => {
  const { page, tasks, shells, lost, switched } = await screen();
  lost.push("web:/etc/motd", "Settings");
  press(page, "Show build");
  expect(words(one(page, "dialog p"))).toBe("Show build? What was typed and is not saved is lost: web:/etc/motd, Settings.");
  press(one(page, "dialog"), "Cancel");
  shells.enter(null);
  tasks.begin({ title: "Pull alpine", command: "" }, () => new Promise<never>(() => undefined));
  flushSync();
  press(page, "Show build");
  expect(words(one(page, "dialog p"))).toBe("Show build? Tasks under way (1) are cancelled. Shells that are open (1) end. What was typed and is not saved is lost: web:/etc/motd, Settings.");
  expect(switched).not.toHaveBeenCalled();
  press(one(page, "dialog"), "Show");
  await expect.poll(() => switched.mock.calls.length).toBe(1);
});
