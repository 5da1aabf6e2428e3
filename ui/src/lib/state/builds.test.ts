import { describe, expect, it } from "vitest";
import { buildCommand } from "../command-line";
import { MemoryHost } from "../host/memory";
import type { BuildSpec, BuildStep } from "../host";
import { BuildForm, imageName } from "./build-form.svelte";
import { Builds, stagesOf } from "./builds.svelte";
import { Tasks } from "./tasks.svelte";

const SPEC: BuildSpec = { folder: "/home/mara/shop", dockerfile: "", tag: "shop/web:dev", target: "", platforms: [], args: [] };

async function builds() {
  const host = new MemoryHost({ containers: 14, lines: 0, machine: "running" });
  const tasks = new Tasks();
  const state = new Builds(host, tasks);
  const stop = state.list.follow();
  await new Promise((done) => setTimeout(done, 0));
  return { host, tasks, state, stop };
}

function step(change: Partial<BuildStep>): BuildStep {
  return { number: 1, stage: null, place: "", name: "x", state: "done", tookMs: 100, note: "", fraction: null, error: "", ...change };
}

describe("builds", () => {
  it("keep their name from beginning to end, and are in the list all the while", async () => {
    const { state, tasks, stop } = await builds();
    const { id, ended } = state.begin(SPEC);
    await new Promise((done) => setTimeout(done, 100));
    expect(state.list.rows?.[0]).toMatchObject({ id, outcome: "running" });
    expect(state.taskOf(id)?.steps.size).toBeGreaterThan(0);
    await ended;
    expect(state.taskOf(id)).toBeNull();
    expect(state.list.rows?.filter((row) => row.id === id)).toMatchObject([{ outcome: "done", cached: 4 }]);
    expect(tasks.unseen.length).toBe(1);
    const second = state.begin(SPEC);
    state.watched = second.id;
    await second.ended;
    expect(tasks.unseen.length).toBe(1);
    stop();
  });

  it("that are cancelled or fail are kept as that", async () => {
    const { state, tasks, stop } = await builds();
    const first = state.begin(SPEC);
    tasks.list[0]?.cancel();
    await first.ended;
    await state.begin({ ...SPEC, target: "broken" }).ended;
    expect(state.list.rows?.slice(0, 2).map((row) => row.outcome)).toEqual(["failed", "cancelled"]);
    expect(tasks.list.map((task) => task.state)).toEqual(["failed", "cancelled"]);
    await state.forget(state.list.rows ?? []);
    expect(state.list.rows).toEqual([]);
    stop();
  });

  it("tell their lines at once and as they come", async () => {
    const { state, stop } = await builds();
    const { id, ended } = state.begin(SPEC);
    const seen: string[] = [];
    await new Promise((done) => setTimeout(done, 100));
    const enough = state.taskOf(id)?.watchLines((lines) => seen.push(...lines));
    await ended;
    enough?.();
    expect(seen).toContain("#3 CACHED");
    expect(seen).toContain("#7 ✓ built in 3.61s");
    stop();
  });
});

describe("steps", () => {
  it("stand by their stages with what was cached and how long that took", () => {
    const stages = stagesOf([step({ number: 1 }), step({ number: 2, stage: "a", state: "cached", tookMs: 0 }), step({ number: 3 }), step({ number: 4, stage: "a", tookMs: 900 })]);
    expect(stages.map(({ name, cached, tookMs, steps }) => [name, cached, tookMs, steps.length])).toEqual([[null, 0, 200, 2], ["a", 1, 900, 2]]);
  });
});

describe("the form", () => {
  it("asks for what its fields say, and once more for what an earlier build asked for", () => {
    const form = new BuildForm();
    expect(form.ready).toBe(false);
    form.take({ path: "/home/mara/My Shop", name: "My Shop", folder: true, dockerfile: false, compose: null, shared: "no" });
    expect([form.tag, form.ready]).toEqual(["my-shop:latest", false]);
    form.dockerfile = "web.Dockerfile";
    form.platforms = "linux/amd64, linux/arm64";
    form.args = "A=1\n# no\nB='two words'";
    expect(form.ready).toBe(true);
    expect(form.command).toBe("docker build --tag my-shop:latest --file '/home/mara/My Shop/web.Dockerfile' --platform linux/amd64,linux/arm64 --build-arg A=1 --build-arg 'B=two words' '/home/mara/My Shop'");
    const again = new BuildForm();
    again.fill(form.spec);
    expect(again.spec).toEqual(form.spec);
  });

  it("proposes names that an image may have", () => {
    expect(["Shop", "--x", "Ä b", "_"].map(imageName)).toEqual(["shop", "x", "b", "image"]);
    expect(buildCommand({ ...SPEC, tag: "" })).toBe("docker build /home/mara/shop");
  });
});
