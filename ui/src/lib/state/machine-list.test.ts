import { describe, expect, it } from "vitest";
import { HostError } from "../host";
import { MemoryHost } from "../host/memory";
import { MachineForm, Machines } from "./machine-list.svelte";

const host = () => new MemoryHost({ containers: 3, lines: 0, machine: "running" });

describe("several machines", () => {
  it("are listed, shown in turn with what is theirs, and deleted when they are not shown", async () => {
    const memory = host();
    const list = new Machines(memory);
    await memory.createMachine({ name: "build", cpus: 4, memoryMib: null, diskGib: null });
    await list.read();
    expect(list.rows?.map((row) => [row.name, row.phase, row.cpus])).toEqual([["build", "stopped", 4], ["default", "running", 2]]);
    expect(await list.choose("build")).toBe(true);
    const seen: (string | null)[] = [];
    memory.watchMachine((news) => seen.push(news.kind === "seen" ? news.machine.name : null))();
    expect(seen).toEqual(["build"]);
    await expect(memory.deleteMachine("build", "build")).rejects.toThrow("is the one that this window shows");
    await expect(memory.deleteMachine("default", "default")).rejects.toThrow("is running");
    expect(await list.choose("default")).toBe(true);
    await expect(memory.deleteMachine("build", "builds")).rejects.toThrow("not confirmed");
    await memory.deleteMachine("build", "build");
    await list.read();
    expect(list.rows?.map((row) => row.name)).toEqual(["default"]);
  });

  it("say why one cannot be shown, and leave the other where it is", async () => {
    const list = new Machines(host());
    await list.read();
    expect(await list.choose("elsewhere")).toBe(false);
    expect(list.failure?.message).toContain("there is no machine `elsewhere`");
    expect([list.busy, list.rows?.length]).toEqual([false, 1]);
  });
});

it("stay listed where they cannot be read any more, until they can", async () => {
  const memory = host();
  let gone = false;
  const list = new Machines({
    machines: () => (gone ? Promise.reject(new HostError("the daemon has ended")) : memory.machines()),
    chooseMachine: (name) => memory.chooseMachine(name),
  });
  await list.read();
  gone = true;
  await list.read();
  expect([list.rows?.length, list.unread?.message]).toEqual([1, "the daemon has ended"]);
  gone = false;
  await list.read();
  expect(list.unread).toBeNull();
});

describe("the form that makes a machine", () => {
  it("shows the command that does the same", () => {
    const form = new MachineForm();
    expect([form.machine, form.command]).toEqual([null, "cove machine create NAME"]);
    form.name = "build";
    expect(form.machine).toEqual({ name: "build", cpus: null, memoryMib: null, diskGib: null });
    [form.cpus, form.memory, form.disk] = ["4", "1.5", "32"];
    expect(form.machine).toEqual({ name: "build", cpus: 4, memoryMib: 1536, diskGib: 32 });
    expect(form.command).toBe("cove machine create build --cpus 4 --memory 1536MiB --disk 32GiB");
  });

  it("takes no name and no number that the daemon would refuse", () => {
    const form = new MachineForm();
    for (const name of ["", "-a", "A", "a/b", "../x", "a".repeat(33)]) {
      form.name = name;
      expect(form.machine, name).toBeNull();
    }
    form.name = "a";
    for (const [cpus, memory, disk] of [["0", "", ""], ["1.5", "", ""], ["", "much", ""], ["", "", "-1"]] as const) {
      [form.cpus, form.memory, form.disk] = [cpus, memory, disk];
      expect(form.machine, `${cpus} ${memory} ${disk}`).toBeNull();
    }
  });
});
