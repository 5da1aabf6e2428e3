import { flushSync } from "svelte";
import { expect, it, onTestFinished, vi } from "vitest";
import type { Failure } from "../host";
import { memory, mounted, one, press, words } from "../mounted";
import { Machine } from "../state/machine.svelte";
import { Tasks } from "../state/tasks.svelte";
import MachineLogs from "./MachineLogs.svelte";

const nothing = () => undefined;

function screen() {
  const host = memory(0);
  const follow = vi.spyOn(host, "followMachineLog");
  const machine = new Machine(host, new Tasks());
  onTestFinished(machine.follow());
  const page = mounted(MachineLogs, { host, machine });
  return {
    host,
    machine,
    page,
    read: () => follow.mock.calls.map(([source]) => source),
    note: () => words(one(page, ".note")),
    goes: async (...ways: ("startMachine" | "stopMachine")[]) => {
      for (const way of ways) await host[way](nothing);
      flushSync();
    },
  };
}

it("a log that the machine tells says why no more of it comes, and is read anew once the machine runs again", async () => {
  const { read, note, goes } = screen();
  expect([read(), note()]).toEqual([["engine"], ""]);
  await goes("stopMachine");
  expect([read(), note()]).toEqual([["engine"], "The machine tells this log while it runs."]);
  await goes("startMachine");
  expect([read(), note()]).toEqual([["engine", "engine"], ""]);
});

it("a log that the daemon reads goes on whatever the machine does, and breaks off with the daemon", async () => {
  const { machine, page, read, note, goes } = screen();
  press(page, "console");
  await goes("stopMachine", "startMachine");
  expect([read(), note()]).toEqual([["engine", "console"], ""]);
  const away: Failure = { message: "it was stopped", hint: "Start it.", kind: "daemon_away" };
  machine.away = away;
  flushSync();
  expect([read().length, note()]).toEqual([2, "Cove's daemon does not answer. it was stopped Start it."]);
  [machine.away, machine.returns] = [null, machine.returns + 1];
  flushSync();
  expect([read(), note()]).toEqual([["engine", "console", "console"], ""]);
});
