import { describe, expect, it } from "vitest";
import { buildCommand } from "../command-line";
import { MemoryHost } from "../host/memory";
import { type BuildSpec, type BuildStep, HostError } from "../host";
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

describe("a build that the host does not keep", () => {
  it("says why it was refused, in the list and without a toast to whom looks at it, until it is forgotten", async () => {
    const { state, tasks, stop } = await builds();
    const { id, ended } = state.begin({ ...SPEC, folder: "/srv/forum" });
    state.watched = id;
    await ended;
    expect(state.list.row(id)).toMatchObject({ outcome: "failed", failure: "/srv/forum is not shared with the machine" });
    expect(state.taskOf(id)?.failure?.hint).toContain("cove share add");
    expect(tasks.unseen.length).toBe(0);
    await state.forget((state.list.rows ?? []).filter((row) => row.id === id));
    expect(state.list.row(id)).toBeUndefined();
    stop();
  });

  it("is not running any more where the history cannot be read after its end", async () => {
    const { host, state, stop } = await builds();
    const { id, ended } = state.begin(SPEC);
    const read = host.builds.bind(host);
    host.builds = async () => { throw new HostError("cannot read the history of builds"); };
    await ended;
    expect(state.list.row(id)).toMatchObject({ outcome: "done", cached: 4 });
    expect(state.list.unread?.message).toContain("cannot read");
    host.builds = read;
    await state.list.refresh();
    expect([state.taskOf(id), state.list.rows?.filter((row) => row.id === id).length]).toEqual([null, 1]);
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
    again.fill(form.spec, "read-write");
    expect(again.spec).toEqual(form.spec);
  });

  it("carries nothing over to another folder but what a person typed", async () => {
    const host = new MemoryHost({ containers: 14, lines: 0, machine: "running" });
    const choose = async () => {
      const folder = await host.chooseFolder();
      if (folder === null) throw new Error("nothing was chosen");
      return folder;
    };
    const form = new BuildForm();
    form.take(await choose());
    form.writing = true;
    form.take(await choose());
    expect([form.tag, form.writing]).toEqual(["blog:latest", false]);
    form.tag = "mine:1";
    form.take(await choose());
    expect(form.tag).toBe("mine:1");
    form.fill({ ...SPEC, target: "build", args: [{ name: "COMMIT", value: "9e1f" }] }, "read-only");
    form.dockerfile = "web.Dockerfile";
    form.take(await host.lookAt("/home/mara/blog"));
    expect(form.spec).toMatchObject({ tag: "blog:latest", target: "", dockerfile: "web.Dockerfile", args: [] });
  });

  it("asks how the folder of an earlier build is shared now", async () => {
    const { host, state, stop } = await builds();
    await host.shareFolder("/home/mara/shop", true);
    await host.shareFolder("/home/ma", false);
    expect(await Promise.all(["/home/mara/shop/api", "/home/mara/shops", "/home/marab"].map((folder) => state.sharing(folder)))).toEqual(["read-only", "read-write", "no"]);
    stop();
  });

  it("proposes names that an image may have", () => {
    expect(["Shop", "--x", "Ä b", "_"].map(imageName)).toEqual(["shop", "x", "b", "image"]);
    expect(buildCommand({ ...SPEC, tag: "" })).toBe("docker build /home/mara/shop");
  });
});
