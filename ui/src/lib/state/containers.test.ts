import { afterEach, describe, expect, it, vi } from "vitest";
import { MemoryHost } from "../host/memory";
import { type ContainerRow, HostError, type Usage } from "../host";
import { actionsFor, Containers, grouped, matching, rate } from "./containers.svelte";
import { MOMENT, type Task, Tasks } from "./tasks.svelte";

function followed(containers = 14) {
  const host = new MemoryHost({ containers, lines: 0, machine: "running" });
  const state = new Containers(host, new Tasks());
  const stop = state.follow();
  return { host, state, stop };
}

describe("the list of containers", () => {
  it("puts projects first by name, then what has none, each sorted by name", () => {
    const { state, stop } = followed();
    const groups = grouped(state.rows ?? []);
    expect(groups.map((group) => group.project)).toEqual(["blog", "metrics", "shop", null]);
    for (const group of groups) {
      const names = group.rows.map((row) => row.name);
      expect(names).toEqual([...names].sort((a, b) => a.localeCompare(b)));
    }
    stop();
  });

  it("is sorted within its groups by what is asked for", () => {
    const { state, stop } = followed();
    state.order = "age";
    for (const { rows } of state.groups) {
      const made = rows.map((row) => row.createdMs);
      expect(made).toEqual([...made].sort((one, other) => other - one));
    }
    stop();
  });

  it("sorted by what it uses, rows stay where they are while one is about to be pressed, and what has stopped uses nothing", () => {
    const { state, stop } = followed();
    state.order = "memory";
    const running = () => state.groups[0]?.rows.filter((row) => row.state === "running").map(({ id }) => id) ?? [];
    const [one, other] = running();
    if (one === undefined || other === undefined) throw new Error("too few run");
    const use = (id: string, memory: number) => state.usage.set(id, [{ atMs: 0, cpu: 0, memory, memoryLimit: 0, received: 0, sent: 0, read: 0, written: 0, processes: 1 }]);
    const first = () => state.groups[0]?.rows[0]?.id;
    use(one, 1e12);
    use(other, 2e12);
    expect(first()).toBe(other);
    state.held = true;
    use(one, 3e12);
    expect(first()).toBe(other);
    state.order = "cpu";
    expect(first()).toBeDefined();
    state.order = "memory";
    expect(first()).toBe(one);
    state.held = false;
    state.rows = state.rows?.map((row) => (row.id === one ? { ...row, state: "exited" } : row)) ?? null;
    expect(first()).toBe(other);
    stop();
  });

  it("has one that is looked at measured, and takes a reading that is told twice once", () => {
    const { host, state, stop } = followed(1);
    let told: (usage: ReadonlyMap<string, Usage>) => void = () => undefined;
    const ended = vi.fn();
    const watch = vi.spyOn(host, "watchUsage").mockImplementation((seen) => {
      told = seen;
      return ended;
    });
    const end = state.measure("a");
    const read = (atMs: number) => told(new Map([["a", { atMs, cpu: 0, memory: 0, memoryLimit: 0, received: 0, sent: 0, read: 0, written: 0, processes: 1 }]]));
    for (const atMs of [100_000, 100_000, 100_300, 101_000, 100_900, 102_010, 9000]) read(atMs);
    expect(state.usage.get("a")?.map(({ atMs }) => atMs)).toEqual([100_000, 101_000, 102_010, 9000]);
    end();
    expect([watch.mock.lastCall?.[1], ended.mock.calls.length]).toEqual(["a", 1]);
    stop();
  });

  it("names files with changes that nobody has saved, and no others", async () => {
    const { state, stop } = followed(1);
    const { id, name } = state.rows?.[0] ?? { id: "", name: "" };
    const files = state.filesOf(id);
    await files.open("/etc/hostname");
    expect(state.unsaved()).toEqual([]);
    if (files.file !== null) files.file.text = "ours";
    expect(state.unsaved()).toEqual([`${name}:/etc/hostname`]);
    stop();
  });

  it("finds by every word, in name, image or project", () => {
    const { state, stop } = followed();
    const found = matching(state.rows ?? [], "SHOP postgres", "all");
    expect(found.map((row) => row.name)).toEqual(["shop-db-1"]);
    stop();
  });

  it("counts a paused container among the running ones", () => {
    const { state, stop } = followed();
    const paused = (state.rows ?? []).filter((row) => row.state === "paused");
    expect(paused.length).toBeGreaterThan(0);
    expect(matching(state.rows ?? [], "", "running")).toEqual(expect.arrayContaining(paused));
    stop();
  });
});

describe("actions", () => {
  it("leave alone a selected container for which they make no sense", async () => {
    const { state, stop } = followed();
    const before = state.rows?.filter((row) => row.state === "exited") ?? [];
    await state.act("stop", (state.rows ?? []).map((row) => row.id));
    for (const row of before) expect(state.row(row.id)).toEqual(row);
    expect((state.rows ?? []).every((row) => row.state === "exited")).toBe(true);
    stop();
  });

  it("take a removed container out of the selection", async () => {
    const { state, stop } = followed();
    const exited = (state.rows ?? []).find((row) => row.state === "exited");
    expect(exited).toBeDefined();
    if (exited === undefined) return;
    state.toggle(exited.id);
    await state.act("remove", [exited.id]);
    expect(state.selected.has(exited.id)).toBe(false);
    stop();
  });

  it("say what failed and free the container for another try", async () => {
    const { host, state, stop } = followed();
    const row = (state.rows ?? []).find((candidate) => actionsFor(candidate).includes("stop"));
    if (row === undefined) throw new Error("no running container");
    host.act = () => Promise.reject(new Error("the engine did not answer"));
    await state.act("stop", [row.id]);
    expect(state.failure?.message).toBe("the engine did not answer");
    expect(state.busy.size).toBe(0);
    stop();
  });
});

describe("an action on one", () => {
  afterEach(() => vi.useRealTimers());

  it("is a task once it takes longer than a moment, which then tells how it ended", async () => {
    vi.useFakeTimers();
    const { host, state, stop } = followed();
    const [row] = (state.rows ?? []).filter((one) => one.state === "running");
    if (row === undefined) throw new Error("no running container");
    let fail: (error: Error) => void = () => undefined;
    host.act = () => new Promise((_, reject) => (fail = reject));
    const ended = state.act("stop", [row.id]);
    vi.advanceTimersByTime(MOMENT - 1);
    expect(state.tasks.list).toEqual([]);
    vi.advanceTimersByTime(1);
    const [task] = state.tasks.list;
    expect([task?.about.title, task?.about.command, task?.cancellable]).toEqual([`Stop: ${row.name}`, `docker stop ${row.name}`, false]);
    fail(new HostError("no"));
    await ended;
    expect([task?.failure?.message, state.tasks.unseen.length, state.failure]).toEqual(["no", 1, null]);
    stop();
  });

  it("that is done at once is no task", async () => {
    vi.useFakeTimers();
    const { state, stop } = followed();
    const [row] = (state.rows ?? []).filter((one) => one.state === "running");
    await state.act("restart", [row?.id ?? ""]);
    vi.advanceTimersByTime(2 * MOMENT);
    expect(state.tasks.list).toEqual([]);
    stop();
  });
});

it("an image is made of a container as a task with its command", async () => {
  const { state, stop } = followed();
  const row = state.rows?.find(({ name }) => name === "shop-web-1");
  if (row === undefined) throw new Error("there is no shop-web-1");
  state.commit(row, "shop/web:kept");
  await expect.poll(() => state.tasks.list[0]?.state).toBe("done");
  expect(state.tasks.list[0]?.about).toMatchObject({ title: "Commit shop-web-1 as shop/web:kept", command: "docker commit shop-web-1 shop/web:kept" });
  stop();
});

describe("an action on several", () => {
  const ids = (rows: readonly ContainerRow[]) => rows.map(({ id }) => id);
  const notes = (task: Task | undefined) => [...(task?.parts.values() ?? [])].map((part) => part.note);

  it("is a task that says how each fared and goes on after one that failed", async () => {
    const { host, state, stop } = followed();
    const rows = (state.rows ?? []).filter((row) => row.state === "running").slice(0, 3);
    const act = host.act.bind(host);
    host.act = (action, id) => (id === rows[1]?.id ? Promise.reject(new HostError("no", "Wait.", null, "conflict")) : act(action, id));
    await state.act("pause", ids(rows));
    const [task] = state.tasks.list;
    expect(task?.about).toEqual({ title: "Pause: 3 containers", command: `docker pause ${rows.map(({ name }) => name).join(" ")}` });
    expect(notes(task)).toEqual(["done", "failed: no", "done"]);
    expect([task?.state, task?.fraction]).toEqual(["failed", 1]);
    expect(task?.failure).toEqual({ message: "1 of 3 failed: no", hint: "Wait.", kind: "conflict" });
    expect(rows.map(({ id }) => state.row(id)?.state)).toEqual(["paused", "running", "paused"]);
    expect([state.failure, state.busy.size]).toEqual([null, 0]);
    stop();
  });

  it("that is cancelled leaves those that wait alone, and ends with what is under way", async () => {
    const { host, state, stop } = followed();
    const wanted = ids(state.rows ?? []).slice(0, 6);
    const asked: string[] = [];
    const finish: (() => void)[] = [];
    host.act = (_, id) =>
      new Promise((resolve) => {
        asked.push(id);
        finish.push(() => resolve());
      });
    const ended = state.act("remove", wanted);
    const [task] = state.tasks.list;
    expect(asked).toEqual(wanted.slice(0, 4));
    expect([...state.busy]).toEqual(asked);
    expect(notes(task).slice(3)).toEqual(["under way", "waiting", "waiting"]);
    task?.cancel();
    expect(notes(task).slice(3)).toEqual(["under way", "cancelled", "cancelled"]);
    expect(task?.state).toBe("running");
    for (const end of finish) end();
    await ended;
    expect(asked).toEqual(wanted.slice(0, 4));
    expect(notes(task).slice(3)).toEqual(["done", "cancelled", "cancelled"]);
    expect([task?.state, state.busy.size]).toEqual(["cancelled", 0]);
    stop();
  });

  it("leaves one alone for which it makes no sense any more when its turn comes", async () => {
    const { host, state, stop } = followed();
    const wanted = ids((state.rows ?? []).filter((row) => row.state === "running")).slice(0, 5);
    const [first, last] = [wanted[0] ?? "", wanted[4] ?? ""];
    const act = host.act.bind(host);
    host.act = async (action, id) => {
      if (id === first) await act("kill", last);
      await act(action, id);
    };
    await state.act("stop", wanted);
    const [task] = state.tasks.list;
    expect(notes(task)).toEqual(["done", "done", "done", "done", "nothing to do"]);
    expect([task?.state, state.row(last)?.status]).toEqual(["done", "Exited (137) 1 second ago"]);
    stop();
  });
});

it("a container that started anew does not show a rate below nothing", () => {
  const reading = (atMs: number, sent: number): Usage => ({
    atMs, sent, cpu: 0, memory: 0, memoryLimit: 0, received: 0, read: 0, written: 0, processes: 1,
  });
  expect(rate([reading(0, 0), reading(2000, 500), reading(3000, 10)], ({ sent }) => sent)).toEqual([250, 0]);
});
