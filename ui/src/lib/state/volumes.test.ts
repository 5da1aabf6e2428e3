import { describe, expect, it } from "vitest";
import { MemoryHost } from "../host/memory";
import { Tasks } from "./tasks.svelte";
import { Volumes } from "./volumes.svelte";

async function volumes() {
  const host = new MemoryHost({ containers: 14, lines: 0, machine: "running" });
  const tasks = new Tasks();
  const state = new Volumes(host, tasks);
  const stop = state.list.follow();
  await new Promise((done) => setTimeout(done, 0));
  return { host, tasks, state, stop };
}

describe("volumes", () => {
  it("are cloned under a name that is free, as a task with its command", async () => {
    const { tasks, state, stop } = await volumes();
    const name = state.nameBeside("shop_data");
    await state.clone("shop_data", name);
    await new Promise((done) => setTimeout(done, 0));
    expect(state.list.row(name)).toBeDefined();
    expect(state.nameBeside("shop_data")).toBe("shop_data-copy-2");
    expect(state.sizes?.get(name)).toBe(state.sizes?.get("shop_data"));
    expect(tasks.list[0]?.about.command).toContain("--volume shop_data:/from:ro");
    stop();
  });

  it("that were emptied are told of, though the host answers nothing", async () => {
    const { host, tasks, state, stop } = await volumes();
    // As the desktop application does it: a command without an answer answers null.
    const answer: unknown = null;
    host.emptyVolume = () => Promise.resolve(answer as undefined);
    await state.empty("shop_data");
    expect(tasks.list.map((task) => task.state)).toEqual(["done"]);
    stop();
  });

  it("may not be made by a name that is taken or none", async () => {
    const { state, stop } = await volumes();
    expect(["shop_data", "", "a b", "-x", "fresh"].map((name) => state.free(name))).toEqual([false, false, false, false, true]);
    stop();
  });

  it("that nobody chose a file for leave no task", async () => {
    const { host, tasks, state, stop } = await volumes();
    host.backUpVolume = () => Promise.resolve(null);
    await state.backUp("shop_data");
    expect(tasks.list).toEqual([]);
    stop();
  });
});
