import { describe, expect, it } from "vitest";
import { HostError, type Job, type TaskStep } from "../host";
import { MOST_WRITTEN, Tasks } from "./tasks.svelte";

const ABOUT = { title: "Pull nginx", command: "docker pull nginx" };

/** Work that a test goes on with by hand. */
function work() {
  let job: Job | undefined;
  let done: (value: number) => void = () => undefined;
  let fail: (error: Error) => void = () => undefined;
  const start = (given: Job) => {
    job = given;
    return new Promise<number>((resolve, reject) => {
      [done, fail] = [resolve, reject];
      given.signal.addEventListener("abort", () => reject(new HostError("cancelled")));
    });
  };
  return { start, tell: (step: TaskStep) => job?.tell(step), done: (value: number) => done(value), fail: (error: Error) => fail(error) };
}

describe("a task", () => {
  it("keeps the last word on each part, every line and the whole", async () => {
    const tasks = new Tasks();
    const pull = work();
    const { task, ended } = tasks.begin(ABOUT, pull.start);
    pull.tell({ kind: "part", id: "a", label: "a", note: "Downloading", fraction: 0.2 });
    pull.tell({ kind: "part", id: "b", label: "b", note: "Waiting", fraction: null });
    pull.tell({ kind: "part", id: "a", label: "a", note: "Pull complete", fraction: 1 });
    pull.tell({ kind: "line", text: "Digest: sha256:00" });
    pull.tell({ kind: "whole", message: "", fraction: 0.5 });
    expect([...task.parts.values()].map((part) => [part.note, part.fraction])).toEqual([["Pull complete", 1], ["Waiting", null]]);
    expect(task.lines).toEqual(["Digest: sha256:00"]);
    expect(task.fraction).toBe(0.5);
    pull.done(42);
    expect(await ended).toEqual({ kind: "done", value: 42 });
    expect(task.state).toBe("done");
  });

  it("keeps the last of its lines where they are too many or too long", () => {
    const tasks = new Tasks();
    const build = work();
    const { task } = tasks.begin(ABOUT, build.start);
    const write = (text: string) => build.tell({ kind: "line", text });
    for (let line = 0; line < 5001; line += 1) write(`${line}`);
    expect([task.lines.length, task.lines[0], task.lines.at(-1)]).toEqual([5000, "1", "5000"]);
    const long = "x".repeat(MOST_WRITTEN / 4);
    for (let line = 0; line < 5; line += 1) write(long);
    expect(task.lines.length).toBe(4);
    write("end");
    expect([task.lines.length, task.lines.at(-1)]).toEqual([4, "end"]);
  });

  it("that fails says why and what to do", async () => {
    const tasks = new Tasks();
    const pull = work();
    const { task, ended } = tasks.begin(ABOUT, pull.start);
    pull.fail(new HostError("no such image", "Check the name."));
    expect(await ended).toEqual({ kind: "failed", failure: { message: "no such image", hint: "Check the name." } });
    expect(tasks.unseen).toEqual([task]);
  });

  it("that is cancelled is no failure, and nobody is told of it", async () => {
    const tasks = new Tasks();
    const { task, ended } = tasks.begin(ABOUT, work().start);
    task.cancel();
    expect(await ended).toEqual({ kind: "cancelled" });
    expect([task.state, task.failure, tasks.unseen.length, tasks.running.length]).toEqual(["cancelled", null, 0, 0]);
  });

  it("is told of once: in the drawer or by a toast", async () => {
    const tasks = new Tasks();
    const pull = work();
    const { ended } = tasks.begin(ABOUT, pull.start);
    pull.done(1);
    await ended;
    expect(tasks.unseen.length).toBe(1);
    tasks.toggle();
    tasks.toggle();
    expect(tasks.unseen).toEqual([]);
  });
});

it("ended tasks are forgotten one day, running ones never", async () => {
  const tasks = new Tasks();
  const running = tasks.begin(ABOUT, work().start).task;
  for (let count = 0; count < 50; count += 1) await tasks.begin(ABOUT, () => Promise.resolve()).ended;
  expect(tasks.list.length).toBeLessThan(25);
  expect(tasks.list).toContain(running);
  tasks.clear();
  expect(tasks.list).toEqual([running]);
});

it("one that the daemon goes on with does not end with the page, and one that cannot be cancelled is not", async () => {
  const tasks = new Tasks();
  const pull = work();
  const stop = work();
  const pulled = tasks.begin(ABOUT, pull.start);
  const stopped = tasks.begin({ title: "Stop", command: "", cancel: { can: false, note: "It cannot be." }, goesOn: true }, stop.start);
  expect([tasks.running.length, tasks.bound]).toEqual([2, [pulled.task]]);
  pulled.task.cancel();
  stopped.task.cancel();
  expect(await pulled.ended).toEqual({ kind: "cancelled" });
  expect([stopped.task.state, tasks.bound]).toEqual(["running", []]);
  stop.done(1);
  expect(await stopped.ended).toEqual({ kind: "done", value: 1 });
});

describe("what was done at once", () => {
  it("is told with its way back, which is taken once", async () => {
    const tasks = new Tasks();
    const names = ["new"];
    tasks.done({ title: "Rename a to b", command: "docker rename a b", back: { command: "docker rename b a", work: async () => names.push("old") } });
    await expect.poll(() => tasks.unseen.length).toBe(1);
    const [task] = tasks.list;
    if (task === undefined) throw new Error("there is no task");
    expect(task.undoable).toBe(true);
    await Promise.all([tasks.undo(task), tasks.undo(task)]);
    expect([names, task.undoable, tasks.list.map((one) => one.about.command)]).toEqual([["new", "old"], false, ["docker rename b a", "docker rename a b"]]);
  });

  it("can be taken back once more where that failed, which is told", async () => {
    const tasks = new Tasks();
    let fails = true;
    const work = () => (fails ? Promise.reject(new HostError("the name `a` is in use")) : Promise.resolve());
    tasks.done({ title: "Rename a to b", command: "docker rename a b", back: { command: "docker rename b a", work } });
    await expect.poll(() => tasks.unseen.length).toBe(1);
    const [task] = tasks.list;
    if (task === undefined) throw new Error("there is no task");
    await tasks.undo(task);
    expect([task.undoable, tasks.unseen.map((one) => one.failure?.message)]).toEqual([true, ["the name `a` is in use"]]);
    fails = false;
    await tasks.undo(task);
    expect(task.undoable).toBe(false);
  });
});
