import { describe, expect, it } from "vitest";
import { MemoryHost } from "../host/memory";
import { Disk } from "./disk.svelte";

const host = (machine: string) => new MemoryHost({ containers: 1, lines: 0, machine });

describe("the machine's disk", () => {
  it("says what may come back, and what came back", async () => {
    const disk = new Disk(host("running"));
    expect(disk.most).toBeNull();
    await disk.look();
    const most = disk.most ?? 0;
    expect(most).toBeGreaterThan(0);
    await disk.reclaim();
    const { before, after } = disk.reclaimed ?? { before: 0, after: 0 };
    expect(before - after).toBeGreaterThan(0);
    expect(before - after).toBeLessThanOrEqual(most);
    expect(disk.use?.onHost).toBe(after);
    expect(disk.busy).toBe(false);
  });

  it("of a machine that does not run tells nothing, and why it cannot be reclaimed", async () => {
    const disk = new Disk(host("stopped"));
    await disk.look();
    expect([disk.use, disk.most]).toEqual([null, null]);
    await disk.reclaim();
    expect(disk.failure?.message).toContain("is stopped");
    expect(disk.reclaimed).toBeNull();
  });

  it("is asked once, however often a person presses", async () => {
    let asked = 0;
    const disk = new Disk({
      diskUse: () => Promise.resolve({ onHost: 1, used: 2 }),
      reclaimDisk: () => Promise.resolve({ before: (asked += 1), after: 0 }),
    });
    await Promise.all([disk.reclaim(), disk.reclaim()]);
    expect(asked).toBe(1);
    expect(disk.most, "never less than nothing").toBe(0);
  });
});
