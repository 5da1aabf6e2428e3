import { describe, expect, it } from "vitest";
import { MemoryHost } from "../host/memory";
import { Layers } from "./layers.svelte";
import { Tasks } from "./tasks.svelte";

async function layers() {
  const host = new MemoryHost({ containers: 1, lines: 0, machine: "running" });
  const [image] = await host.images();
  if (image === undefined) throw new Error("no image");
  const tasks = new Tasks();
  return { host, tasks, id: image.id, state: new Layers(host, tasks, image.id) };
}

const paths = (state: Layers) => state.rows?.rows.map(({ path }) => path);

describe("the layers of an image", () => {
  it("are read as a task with its command, and the largest is shown, largest file first", async () => {
    const { state, tasks } = await layers();
    const reading = state.read("nginx:1.29-alpine");
    expect(tasks.list[0]?.about.command).toBe("docker save nginx:1.29-alpine | tar --list");
    await reading;
    expect(state.layers?.map(({ command }) => command.split(" ")[0])).toEqual(["COPY", "RUN", "ADD"]);
    expect(state.shown?.command).toMatch(/^ADD/);
    expect(paths(state)?.[0]).toBe("/lib/libcrypto.so.3");
    expect(tasks.unseen).toEqual([]);
  });

  it("say what is removed, as a list and as a tree, and a layer that cannot be read says that", async () => {
    const { state } = await layers();
    await state.read("web");
    await state.choose(1);
    expect(state.rows?.rows.find(({ path }) => path === "/etc/motd")?.change).toBe("deleted");
    await state.open("/");
    expect(state.rows?.rows.map(({ path, size }) => [path, size > 0])).toEqual([["/usr", true], ["/etc", true]]);
    await state.open("/etc");
    expect(paths(state)).toEqual(["/etc/passwd", "/etc/nginx", "/etc/motd"]);
    await state.choose(2);
    expect([state.folder, state.shown?.readable, paths(state)]).toEqual(["/", false, []]);
  });

  it("are searched by words, and an answer to an earlier question is dropped", async () => {
    const { host, state } = await layers();
    await state.read("web");
    const ask = host.layerFiles.bind(host);
    let answer = () => {};
    const late = new Promise<void>((done) => (answer = done));
    host.layerFiles = async (id, layer, folder, search) => {
      if (search === "lib") await late;
      return ask(id, layer, folder, search);
    };
    state.search = "lib";
    const first = state.show();
    state.search = "LIB musl";
    await state.show();
    expect(paths(state)).toEqual(["/lib/ld-musl-x86_64.so.1"]);
    answer();
    await first;
    expect(paths(state)).toEqual(["/lib/ld-musl-x86_64.so.1"]);
  });

  it("that the host has forgotten are to be read again", async () => {
    const { host, state } = await layers();
    await state.read("web");
    host.layerFiles = () => Promise.reject(new Error("not known any more"));
    await state.show();
    expect([state.layers, state.failure?.message]).toEqual([null, "not known any more"]);
  });

  it("are not shown where reading them was cancelled", async () => {
    const { state } = await layers();
    const reading = state.read("web");
    state.task?.cancel();
    await reading;
    expect([state.layers, state.task, state.failure]).toEqual([null, null, null]);
  });
});
