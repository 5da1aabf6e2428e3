import { describe, expect, it, vi } from "vitest";
import { HostError, type MachineView, type Reclaimed } from "../host";
import { MemoryHost } from "../host/memory";
import { Usage } from "./machine-usage.svelte";
import { Tasks } from "./tasks.svelte";

function used(state: string) {
  const host = new MemoryHost({ containers: 1, lines: 0, machine: state });
  const tasks = new Tasks();
  return { usage: new Usage(host, tasks), tasks, view: shownBy(host) };
}

/** The machine that a host shows. */
function shownBy(host: MemoryHost): MachineView {
  let view: MachineView | null = null;
  host.watchMachine((news) => (view = news.kind === "seen" ? news.machine : null))();
  if (view === null) throw new Error("the host shows no machine");
  return view;
}

const VIEW = shownBy(new MemoryHost({ containers: 0, lines: 0, machine: "running" }));

/** A machine that gives space back when a test has it do so. */
function byHand() {
  let done: (came: Reclaimed) => void = () => undefined;
  let fail: (error: Error) => void = () => undefined;
  let asked = 0;
  const tasks = new Tasks();
  const usage = new Usage(
    {
      machineUsage: () => Promise.resolve({ diskOnHost: 1, diskUsed: 2, memoryUsed: 3, cpu: null }),
      reclaimDisk: () => {
        asked += 1;
        return new Promise((told, refused) => ([done, fail] = [told, refused]));
      },
    },
    tasks,
  );
  return { usage, tasks, asked: () => asked, done: (came: Reclaimed) => done(came), fail: (error: Error) => fail(error) };
}

describe("what the machine uses", () => {
  it("says what may come back, and what came back", async () => {
    const { usage, view } = used("running");
    expect(usage.most).toBeNull();
    await usage.look();
    expect(usage.now?.memoryUsed).toBeGreaterThan(0);
    const most = usage.most ?? 0;
    expect(most).toBeGreaterThan(0);
    await usage.reclaim(view);
    const { before, after } = usage.reclaimed ?? { before: 0, after: 0 };
    expect(before - after).toBeGreaterThan(0);
    expect(before - after).toBeLessThanOrEqual(most);
    expect(usage.now?.diskOnHost).toBe(after);
    expect(usage.busy).toBe(false);
  });

  it("of a machine that does not run tells nothing, and why it cannot be reclaimed", async () => {
    const { usage, tasks, view } = used("stopped");
    await usage.look();
    expect([usage.now, usage.most]).toEqual([null, null]);
    await usage.reclaim(view);
    expect(usage.failure?.message).toContain("is stopped");
    expect(tasks.unseen.map((task) => task.failure)).toEqual([usage.failure]);
    expect(usage.reclaimed).toBeNull();
  });

  it("is asked again once it has answered, until nobody looks", async () => {
    vi.useFakeTimers();
    let asked = 0;
    let answer: () => void = () => undefined;
    const usage = new Usage(
      {
        machineUsage: () => {
          asked += 1;
          return new Promise((told) => (answer = () => told({ diskOnHost: 1, diskUsed: 1, memoryUsed: asked, cpu: null })));
        },
        reclaimDisk: () => Promise.reject(new Error("nobody asked for it")),
      },
      new Tasks(),
    );
    const stop = usage.follow();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([asked, usage.now], "a slow guest is asked once").toEqual([1, null]);
    answer();
    await vi.advanceTimersByTimeAsync(6000);
    expect([asked, usage.now?.memoryUsed]).toEqual([2, 1]);
    stop();
    answer();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(asked).toBe(2);
    vi.useRealTimers();
  });

  it("tells from two readings of one start how busy its processors are", async () => {
    const readings = [
      { busy: 50, all: 1000 },
      { busy: 100, all: 1200 },
      { busy: 100, all: 1200 },
      // It was started anew.
      { busy: 10, all: 20 },
      { busy: 40, all: 60 },
      null,
    ];
    const host = {
      machineUsage: () => Promise.resolve({ diskOnHost: 1, diskUsed: 1, memoryUsed: 1, cpu: readings.shift() ?? null }),
      reclaimDisk: () => Promise.reject(new Error("nobody asked for it")),
    };
    const usage = new Usage(host, new Tasks());
    const loads: (number | null)[] = [];
    while (readings.length > 0) {
      await usage.look();
      loads.push(usage.load);
    }
    expect(loads).toEqual([null, 0.25, null, null, 0.75, null]);
  });

  it("is asked once, however often a person presses", async () => {
    const { usage, tasks, asked, done } = byHand();
    const both = Promise.all([usage.reclaim(VIEW), usage.reclaim(VIEW)]);
    done({ before: 1, after: 0 });
    await both;
    expect([asked(), tasks.list.length]).toEqual([1, 1]);
    expect(usage.most, "never less than nothing").toBe(0);
  });

  it("comes back as a task, which says that it cannot be cancelled, goes on without the page, and what came of it", async () => {
    const { usage, tasks, done } = byHand();
    const reclaiming = usage.reclaim({ ...VIEW, name: "build" });
    const [task] = tasks.list;
    expect([task?.about.title, task?.about.command]).toEqual(["Give disk space of machine build back", "cove machine reclaim --machine build"]);
    expect([task?.message, task?.fraction]).toEqual(["The machine discards what it does not use of its disk", null]);
    expect([task?.cancellable, task?.about.cancel?.note]).toEqual([false, "What the machine has begun to give back cannot be cancelled."]);
    expect([usage.busy, tasks.running.length, tasks.bound.length]).toEqual([true, 1, 0]);
    task?.cancel();
    done({ before: 3 * 1024 ** 3, after: 1024 ** 3 });
    await reclaiming;
    expect([usage.busy, task?.state, task?.lines]).toEqual([false, "done", ["It took 3.0 GiB, and takes 1.0 GiB now."]]);
    expect(tasks.unseen).toEqual([task]);
  });

  it("says what came of it until a person has looked at it and left, also where that was begun before they came back", async () => {
    const { usage, done, fail } = byHand();
    const leave = usage.follow();
    const reclaiming = usage.reclaim(VIEW);
    leave();
    done({ before: 2, after: 1 });
    await reclaiming;
    const again = usage.follow();
    expect(usage.reclaimed).toEqual({ before: 2, after: 1 });
    again();
    expect(usage.reclaimed).toBeNull();
    const failing = usage.reclaim(VIEW);
    fail(new HostError("the connection to the guest's agent was lost"));
    await failing;
    expect(usage.failure?.message).toBe("the connection to the guest's agent was lost");
    usage.follow()();
    expect(usage.failure).toBeNull();
  });
});
