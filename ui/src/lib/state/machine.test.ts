import { describe, expect, it } from "vitest";
import { MemoryHost } from "../host/memory";
import { Machine } from "./machine.svelte";

describe("the machine", () => {
  it("shows how far a stop is for as long as it goes on", async () => {
    const machine = new Machine(new MemoryHost({ containers: 0, lines: 0, machine: "running" }));
    const unfollow = machine.follow();
    const stopping = machine.stop();
    expect(machine.phase).toBe("stopping");
    expect(machine.step?.message).toContain("Stopping");
    expect(machine.step?.fraction).toBeGreaterThan(0);
    await stopping;
    expect(machine.phase).toBe("stopped");
    expect(machine.step).toBeNull();
    unfollow();
  });
});
