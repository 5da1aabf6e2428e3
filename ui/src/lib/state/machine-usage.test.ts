import { describe, expect, it, vi } from "vitest";
import { MemoryHost } from "../host/memory";
import { Usage } from "./machine-usage.svelte";

const host = (machine: string) => new MemoryHost({ containers: 1, lines: 0, machine });

describe("what the machine uses", () => {
  it("says what may come back, and what came back", async () => {
    const usage = new Usage(host("running"));
    expect(usage.most).toBeNull();
    await usage.look();
    expect(usage.now?.memoryUsed).toBeGreaterThan(0);
    const most = usage.most ?? 0;
    expect(most).toBeGreaterThan(0);
    await usage.reclaim();
    const { before, after } = usage.reclaimed ?? { before: 0, after: 0 };
    expect(before - after).toBeGreaterThan(0);
    expect(before - after).toBeLessThanOrEqual(most);
    expect(usage.now?.diskOnHost).toBe(after);
    expect(usage.busy).toBe(false);
  });

  it("of a machine that does not run tells nothing, and why it cannot be reclaimed", async () => {
    const usage = new Usage(host("stopped"));
    await usage.look();
    expect([usage.now, usage.most]).toEqual([null, null]);
    await usage.reclaim();
    expect(usage.failure?.message).toContain("is stopped");
    expect(usage.reclaimed).toBeNull();
  });

  it("is asked again once it has answered, until nobody looks", async () => {
    vi.useFakeTimers();
    let asked = 0;
    let answer: () => void = () => undefined;
    const usage = new Usage({
      machineUsage: () => {
        asked += 1;
        return new Promise((told) => (answer = () => told({ diskOnHost: 1, diskUsed: 1, memoryUsed: asked })));
      },
      reclaimDisk: () => Promise.reject(new Error("nobody asked for it")),
    });
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

  it("is asked once, however often a person presses", async () => {
    let asked = 0;
    const usage = new Usage({
      machineUsage: () => Promise.resolve({ diskOnHost: 1, diskUsed: 2, memoryUsed: 3 }),
      reclaimDisk: () => Promise.resolve({ before: (asked += 1), after: 0 }),
    });
    await Promise.all([usage.reclaim(), usage.reclaim()]);
    expect(asked).toBe(1);
    expect(usage.most, "never less than nothing").toBe(0);
  });
});
