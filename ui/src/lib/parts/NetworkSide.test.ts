import { flushSync } from "svelte";
import { expect, it, onTestFinished, vi } from "vitest";
import { all, memory, mounted } from "../mounted";
import { networkList } from "../state/networks.svelte";
import { Tasks } from "../state/tasks.svelte";
import NetworkSide from "./NetworkSide.svelte";

const nothing = () => undefined;

it("who is connected stays in view while that is read anew, as after each event of a container", async () => {
  const host = memory();
  const list = networkList(host);
  onTestFinished(list.follow());
  await expect.poll(() => list.rows?.length ?? 0).toBeGreaterThan(0);
  const row = list.rows?.find((row) => row.containers.length > 0);
  const page = mounted(NetworkSide, { host, list, tasks: new Tasks(), row, connect: nothing, remove: nothing });
  await expect.poll(() => all(page, ".member").length).toBeGreaterThan(0);
  const before = all(page, ".member");
  const details = vi.spyOn(host, "networkDetails").mockReturnValue(new Promise(nothing));
  await list.refresh();
  flushSync();
  expect([details.mock.calls.length, all(page, ".member")]).toEqual([1, before]);
});
