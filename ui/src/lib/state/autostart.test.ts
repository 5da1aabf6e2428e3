import { describe, expect, it } from "vitest";
import { MemoryHost } from "../host/memory";
import { Autostart } from "./autostart.svelte";

describe("opening with the session", () => {
  it("is off until it is asked for, and shows what the host has", async () => {
    const host = new MemoryHost({ containers: 0, lines: 0, machine: "running" });
    const autostart = new Autostart(host);
    await autostart.read();
    expect(autostart.on).toBe(false);
    await autostart.set(true);
    expect([autostart.on, await host.autostart()]).toEqual([true, true]);
    // Somebody else turns it off.
    await host.setAutostart(false);
    await autostart.read();
    expect(autostart.on).toBe(false);
  });

  it("goes back to the truth where it cannot be changed, and says why", async () => {
    const autostart = new Autostart({
      autostart: () => Promise.resolve(false),
      setAutostart: () => Promise.reject(new Error("cannot write it")),
    });
    await autostart.read();
    const setting = autostart.set(true);
    expect(autostart.on, "at once").toBe(true);
    await setting;
    expect([autostart.on, autostart.failure?.message]).toEqual([false, "cannot write it"]);
  });

  it("is not there where the desktop has no such thing", async () => {
    const autostart = new Autostart({ autostart: () => Promise.resolve(null), setAutostart: () => Promise.resolve() });
    await autostart.read();
    expect(autostart.on).toBeNull();
  });
});
