import { describe, expect, it } from "vitest";
import { HostError, type MachineNews, type MachineView, type Step } from "../host";
import { MemoryHost } from "../host/memory";
import { Machine } from "./machine.svelte";
import { Tasks } from "./tasks.svelte";

function followed(phase: string) {
  const tasks = new Tasks();
  const host = new MemoryHost({ containers: 0, lines: 0, machine: phase });
  const machine = new Machine(host, tasks);
  machine.follow();
  const told = () => tasks.list.map((task) => [task.about.title, task.about.command, task.state]);
  return { host, machine, tasks, told };
}

const nothing = () => undefined;

const VIEW = followed("stopped").machine.view as MachineView;

/** A machine whose daemon does nothing but what a test has it do. */
function byHand() {
  let step: (step: Step) => void = () => undefined;
  let fail: (error: Error) => void = () => undefined;
  let news: (news: MachineNews) => void = nothing;
  let stops = 0;
  const start = (told: (step: Step) => void) => {
    step = told;
    return new Promise<void>((_, reject) => (fail = reject));
  };
  const tasks = new Tasks();
  const machine = new Machine(
    {
      watchMachine: (seen) => {
        news = seen;
        return nothing;
      },
      startMachine: start,
      restartMachine: start,
      stopMachine: async () => {
        stops += 1;
      },
    },
    tasks,
  );
  machine.follow();
  return {
    machine,
    tasks,
    step: (told: Step) => step(told),
    fail: (error: Error) => fail(error),
    stops: () => stops,
    /** The machine is in one phase after the other. */
    goes: (...phases: Partial<MachineView>[]) => {
      for (const change of phases) news({ kind: "seen", machine: { ...VIEW, ...change } });
    },
    lose: (message: string) => news({ kind: "away", failure: { message, hint: "" } }),
  };
}

describe("the machine", () => {
  it("shows how far a stop is for as long as it goes on", async () => {
    const { machine } = followed("running");
    const stopping = machine.stop();
    expect(machine.phase).toBe("stopping");
    expect(machine.step?.message).toContain("Stopping");
    expect(machine.step?.fraction).toBeGreaterThan(0);
    await stopping;
    expect(machine.phase).toBe("stopped");
    expect(machine.step).toBeNull();
  });

  it("starts as a task, whose progress is its stage", async () => {
    const { machine, tasks, told } = followed("stopped");
    const starting = machine.start();
    const [task] = tasks.list;
    expect([task?.message, task?.fraction, task?.cancellable]).toEqual(["Booting the kernel", 0.1, true]);
    expect(told()).toEqual([["Start machine default", "cove start", "running"]]);
    await starting;
    expect(told()).toEqual([["Start machine default", "cove start", "done"]]);
    expect([machine.phase, machine.failure]).toEqual(["running", null]);
  });

  it("starts once, however often it is asked to meanwhile", async () => {
    const { machine, tasks } = followed("stopped");
    await Promise.all([machine.start(), machine.start()]);
    expect(tasks.list.length).toBe(1);
  });

  it("is stopped by cancelling its start, which is no failure", async () => {
    const { machine, tasks, told } = followed("stopped");
    const starting = machine.start();
    tasks.list[0]?.cancel();
    await starting;
    await expect.poll(() => tasks.running.length).toBe(0);
    expect(told()).toEqual([["Stop machine default", "cove stop", "done"], ["Start machine default", "cove start", "cancelled"]]);
    expect([machine.phase, machine.failure, machine.step]).toEqual(["stopped", null, null]);
  });

  it("is restarted by one task, and stays stopped where that is cancelled", async () => {
    const { machine, tasks, told } = followed("running");
    await machine.restart();
    expect([machine.phase, told()]).toEqual(["running", [["Restart machine default", "cove restart", "done"]]]);
    tasks.clear();
    const restarting = machine.restart();
    expect(machine.phase).toBe("stopping");
    tasks.list[0]?.cancel();
    await restarting;
    await expect.poll(() => tasks.running.length).toBe(0);
    expect(told()).toEqual([["Stop machine default", "cove stop", "done"], ["Restart machine default", "cove restart", "cancelled"]]);
    expect([machine.phase, machine.failure]).toEqual(["stopped", null]);
  });

  it("goes on with a stop that a person would cancel, and the task says that it cannot be", async () => {
    const { machine, tasks, told } = followed("running");
    const stopping = machine.stop();
    const [task] = tasks.list;
    expect([task?.cancellable, task?.about.cancel?.note]).toEqual([false, "A stop cannot be cancelled."]);
    task?.cancel();
    await stopping;
    expect(told()).toEqual([["Stop machine default", "cove stop", "done"]]);
  });

  it("says in the daemon's words why it did not start, as a task and where it is shown", async () => {
    const { machine, tasks, fail } = byHand();
    const starting = machine.start();
    fail(new HostError("the Docker engine did not come up within 60 seconds", "`cove logs engine` says more", null, "timeout"));
    await starting;
    expect(machine.failure?.message).toBe("the Docker engine did not come up within 60 seconds");
    expect(machine.failure?.hint).toBe("`cove logs engine` says more");
    expect(tasks.unseen.map((task) => [task.about.title, task.failure])).toEqual([["Start the machine", machine.failure]]);
  });

  it("is not stopped before the daemon has heard of the start that is cancelled", async () => {
    const { machine, tasks, step, fail, stops } = byHand();
    const starting = machine.start();
    const [start] = tasks.list;
    start?.cancel();
    await Promise.resolve();
    expect([stops(), start?.state]).toEqual([0, "running"]);
    step({ message: "Starting", fraction: 0 });
    await expect.poll(stops).toBe(1);
    fail(new HostError("the start was cancelled"));
    await starting;
    expect([start?.state, machine.failure, stops()]).toEqual(["cancelled", null, 1]);
  });

  it("shows what others have it do as tasks", async () => {
    const { host, tasks, told } = followed("stopped");
    const starting = host.startMachine(nothing);
    expect([tasks.list[0]?.message, tasks.list[0]?.fraction, tasks.bound.length]).toEqual(["Booting the kernel", null, 0]);
    expect(told()).toEqual([["Start machine default", "cove start", "running"]]);
    await starting;
    await expect.poll(told).toEqual([["Start machine default", "cove start", "done"]]);
    tasks.clear();
    const stopping = host.stopMachine(nothing);
    expect(tasks.list.map((task) => task.cancellable)).toEqual([false]);
    await stopping;
    await expect.poll(told).toEqual([["Stop machine default", "cove stop", "done"]]);
  });

  it("is stopped by cancelling a start that somebody else asked for", async () => {
    const { host, machine, tasks, told } = followed("stopped");
    const starting = host.startMachine(nothing).catch((error: unknown) => error);
    tasks.list[0]?.cancel();
    await starting;
    await expect.poll(() => tasks.running.length).toBe(0);
    expect(told()).toEqual([["Stop machine default", "cove stop", "done"], ["Start machine default", "cove start", "cancelled"]]);
    expect([machine.phase, machine.failure]).toEqual(["stopped", null]);
  });

  it("restarted by others is two tasks, and a start that others stop is one that failed", async () => {
    const { tasks, goes } = byHand();
    const told = () => tasks.list.map((task) => [task.about.title, task.state, task.failure?.message]);
    goes({ phase: "running" }, { phase: "stopping" }, { phase: "starting", stage: "Booting" }, { phase: "starting", stage: "Starting the engine" });
    expect(tasks.list[0]?.message).toBe("Starting the engine");
    goes({ phase: "stopping" }, { phase: "stopped" });
    await expect.poll(told).toEqual([
      ["Stop machine default", "done", undefined],
      ["Start machine default", "failed", "The machine was stopped before it ran."],
      ["Stop machine default", "done", undefined],
    ]);
  });

  it("says why it failed while others had it started, and that nobody knows without a daemon", async () => {
    const { tasks, goes, lose } = byHand();
    const failures = () => tasks.list.map((task) => task.failure);
    goes({ phase: "stopped" }, { phase: "starting" }, { phase: "failed", failure: { message: "no space is left", hint: "make some", kind: "disk_full" } });
    await expect.poll(failures).toEqual([{ message: "no space is left", hint: "make some", kind: "disk_full" }]);
    tasks.clear();
    goes({ phase: "running" }, { phase: "stopping" });
    lose("the Cove daemon has ended");
    await expect.poll(failures).toEqual([{ message: "the Cove daemon has ended", hint: "" }]);
  });

  it("counts how often it has come to run and the daemon to answer, and no pause", () => {
    const { machine, goes, lose } = byHand();
    const counts = () => [machine.runs, machine.returns];
    goes({ phase: "stopped" });
    expect(counts()).toEqual([0, 1]);
    goes({ phase: "starting" }, { phase: "running" }, { phase: "running", uptimeS: 9 }, { phase: "paused" }, { phase: "running" });
    expect(counts()).toEqual([1, 1]);
    goes({ phase: "stopping" }, { phase: "stopped" }, { phase: "running" });
    expect(counts()).toEqual([2, 1]);
    // The machine goes on without its daemon, and what it told through that one has broken off.
    lose("the Cove daemon has ended");
    goes({ phase: "running" });
    expect(counts()).toEqual([3, 2]);
  });

  it("that is found starting, by a window or a daemon that has just begun, or is another one, was not asked to", () => {
    const { tasks, goes, lose } = byHand();
    goes({ phase: "starting" }, { phase: "running" });
    lose("the Cove daemon has ended");
    goes({ phase: "starting" }, { phase: "running" }, { name: "build", phase: "starting" });
    expect(tasks.list).toEqual([]);
  });
});
