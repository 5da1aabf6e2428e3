import { flushSync } from "svelte";
import { expect, it } from "vitest";
import { all, memory, mounted, one, press, words } from "../mounted";
import { Machine } from "../state/machine.svelte";
import { SettingsForm } from "../state/settings.svelte";
import { Tasks } from "../state/tasks.svelte";
import MachineSettings from "./MachineSettings.svelte";

async function screen() {
  const host = memory();
  const form = new SettingsForm(host);
  const machine = new Machine(host, new Tasks());
  const page = mounted(MachineSettings, { host, machine, form });
  await expect.poll(() => page.querySelector("[for='machine.backend']")).not.toBeNull();
  const backend = () => one<HTMLSelectElement>(page, "select[id='machine.backend']");
  const choose = (value: string) => {
    backend().value = value;
    backend().dispatchEvent(new Event("change", { bubbles: true }));
    flushSync();
  };
  return { host, machine, page, form, backend, choose };
}

it("a setting of a few named values is chosen from these, and others are typed", async () => {
  const { page, backend } = await screen();
  expect([all(backend(), "option"), backend().value]).toEqual([["auto", "kvm", "emulated"], "auto"]);
  expect(words(one(page, "label[for='machine.backend']"))).toBe("machine.backend");
  expect(one<HTMLInputElement>(page, "[id='machine.cpus']").type).toBe("text");
  expect(one<HTMLInputElement>(page, "[id='machine.foreign-processors']").type).toBe("checkbox");
});

it("what is chosen is a draft like what is typed, and goes back to the default", async () => {
  const { page, form, backend, choose } = await screen();
  choose("emulated");
  expect(form.drafts.get("machine.backend")).toBe("emulated");
  await form.review();
  await form.apply();
  flushSync();
  expect([form.drafts.size, backend().value]).toEqual([0, "emulated"]);
  press(page, "Back to the default of machine.backend");
  expect([form.drafts.get("machine.backend"), backend().value]).toEqual([null, "auto"]);
  choose("emulated");
  expect(form.drafts.size, "what is in force is no change").toBe(0);
});

it("settings are read anew from a daemon that is there again, and what was typed stays", async () => {
  const { host, machine, page, form, choose } = await screen();
  const cpus = () => one<HTMLInputElement>(page, "[id='machine.cpus']").value;
  choose("emulated");
  const other = { "machine.cpus": "8" };
  await host.changeSettings(other, (await host.changeSettings(other, null)).mark);
  expect(cpus()).toBe("2");
  machine.returns += 1;
  flushSync();
  await expect.poll(cpus).toBe("8");
  expect([form.drafts.get("machine.backend"), one<HTMLSelectElement>(page, "select[id='machine.backend']").value]).toEqual(["emulated", "emulated"]);
});
