import { describe, expect, it } from "vitest";
import { MemoryHost } from "../host/memory";
import { OpenFile } from "./files.svelte";
import { containersOf, Projects, running } from "./projects.svelte";
import { Tasks } from "./tasks.svelte";

async function projects() {
  const host = new MemoryHost({ containers: 14, lines: 0, machine: "running" });
  const tasks = new Tasks();
  const state = new Projects(host, tasks);
  const stop = state.list.follow();
  await new Promise((done) => setTimeout(done, 0));
  return { host, tasks, state, stop };
}

function row(state: Projects, name: string) {
  const found = state.list.row(name);
  if (found === undefined) throw new Error(`no project ${name}`);
  return found;
}

describe("projects", () => {
  it("that are brought down stay in the list and come up again, each as a task with its command", async () => {
    const { tasks, state, stop } = await projects();
    expect(running(row(state, "shop"))).toBeGreaterThan(0);
    await state.act("down", row(state, "shop"));
    expect(containersOf(row(state, "shop"))).toEqual([]);
    expect(tasks.list[0]?.about.command).toBe("docker compose --project-name=shop --project-directory=/home/mara/shop --file=/home/mara/shop/compose.yaml down");
    await state.act("up", row(state, "shop"));
    expect(running(row(state, "shop"))).toBe(2);
    expect(tasks.list[0]?.parts.get("Container shop-web-1")?.note).toBe("Started");
    stop();
  });

  it("are opened from a folder with a compose file only", async () => {
    const { state, stop } = await projects();
    expect(await state.open("/home/mara/forum")).toBe("forum");
    expect(row(state, "forum").services.map((service) => service.name)).toEqual(["db", "web"]);
    await expect(state.open("/home/mara/music")).rejects.toThrow("no compose file");
    stop();
  });

  it("save a file that compose finds valid, and what was typed stays until it is read anew", async () => {
    const { host, state, stop } = await projects();
    const path = "/home/mara/shop/compose.yaml";
    const write = (file: string, text: string, revision: string | null) => host.writeProjectFile("shop", file, text, revision);
    const file = await state.file("shop", path);
    if (!(file instanceof OpenFile)) throw new Error(file.message);
    file.text = "service:";
    await file.save(write);
    expect([file.failure?.message.includes("not valid"), file.changed]).toEqual([true, true]);
    expect(await state.file("shop", path)).toBe(file);
    file.text = "services: {}\n";
    await file.save(write);
    expect([file.failure, file.changed]).toEqual([null, false]);
    const again = await state.file("shop", path);
    await host.writeProjectFile("shop", path, "services: {a: {}}\n", null);
    if (!(again instanceof OpenFile)) throw new Error(again.message);
    again.text = "services: {b: {}}\n";
    await again.save(write);
    expect(again.conflict).toBe(true);
    stop();
  });
});
