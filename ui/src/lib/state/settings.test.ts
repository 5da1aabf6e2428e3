import { expect, it } from "vitest";
import { MemoryHost } from "../host/memory";
import { SettingsForm } from "./settings.svelte";

async function form() {
  const host = new MemoryHost({ containers: 0, lines: 0, machine: "running" });
  const settings = new SettingsForm(host);
  await settings.read();
  const row = (key: string) => {
    const found = settings.view?.rows.find((row) => row.key === key);
    if (found === undefined) throw new Error(`no setting ${key}`);
    return found;
  };
  return { host, settings, row };
}

it("what is typed changes nothing until it is applied, and shows before what it comes to", async () => {
  const { settings, row } = await form();
  settings.type(row("machine.cpus"), "4");
  await settings.review();
  expect(settings.diff?.lines.filter((line) => line.sign === "added").map((line) => line.text)).toEqual(["machine.cpus = 4"]);
  expect(settings.diff?.restartNeeded).toEqual(["default"]);
  await settings.read();
  expect(row("machine.cpus").value).toBe("2");
  await settings.apply();
  expect([row("machine.cpus").value, settings.drafts.size]).toEqual(["4", 0]);
  expect(settings.restartNeeded).toEqual(["default"]);
  settings.stopped("other");
  expect(settings.restartNeeded).toEqual(["default"]);
  settings.stopped("default");
  expect(settings.restartNeeded).toEqual([]);
  settings.reset(row("machine.cpus"));
  await settings.apply();
  expect(row("machine.cpus").value, "nobody saw what it comes to").toBe("4");
  await settings.review();
  await settings.apply();
  expect([row("machine.cpus").value, row("machine.cpus").set]).toEqual(["2", false]);
});

it("what the daemon refuses is kept as it was typed, with the reason", async () => {
  const { settings, row } = await form();
  settings.type(row("machine.cpus"), "none");
  await settings.review();
  expect(settings.failure?.message).toContain("machine.cpus");
  expect(settings.value(row("machine.cpus"))).toBe("none");
  settings.type(row("machine.cpus"), "2");
  expect(settings.drafts.size).toBe(0);
});

it("what is applied is what was shown, and not what the file or the drafts have become since", async () => {
  const { host, settings, row } = await form();
  settings.type(row("machine.cpus"), "4");
  await settings.review();
  const other = { "proxy.http": "http://proxy" };
  await host.changeSettings(other, (await host.changeSettings(other, null)).mark);
  await settings.apply();
  expect(settings.failure?.message).toContain("changed meanwhile");
  expect([row("machine.cpus").value, row("proxy.http").value, settings.value(row("machine.cpus"))]).toEqual(["2", "http://proxy", "4"]);
  // It is shown anew, and what is typed while it is asked for is not in it.
  const review = settings.review();
  settings.type(row("machine.cpus"), "8");
  await review;
  expect(settings.diff).toBeNull();
  await settings.review();
  await settings.apply();
  expect([row("machine.cpus").value, settings.drafts.size]).toEqual(["8", 0]);
});
