import { flushSync } from "svelte";
import { expect, it } from "vitest";
import { all, memory, mounted } from "../mounted";
import { Machine } from "../state/machine.svelte";
import { Tasks } from "../state/tasks.svelte";
import MachineAccess from "./MachineAccess.svelte";

it("shared folders are read anew from a daemon that is there again", async () => {
  const host = memory(0);
  const machine = new Machine(host, new Tasks());
  const page = mounted(MachineAccess, { host, machine });
  const folders = () => all(page, "section:first-of-type .item .grow > .mono");
  await expect.poll(folders).toEqual(["/home/mara"]);
  await host.shareFolder("/srv/data", true);
  expect(folders()).toEqual(["/home/mara"]);
  machine.returns += 1;
  flushSync();
  await expect.poll(folders).toEqual(["/home/mara", "/srv/data"]);
});
