import { describe, expect, it } from "vitest";
import type { MachineNews } from "../host";
import { MemoryHost } from "../host/memory";
import type { Kept } from "./kept";
import { recallMachine, rememberMachine } from "./last-machine";
import { SingleKeys } from "./single-keys.svelte";
import { chosenTheme, chooseTheme } from "./theme";

function memory(): Kept {
  const values = new Map<string, string>();
  return {
    get: (name) => values.get(name) ?? null,
    set: (name, value) => void (value === null ? values.delete(name) : values.set(name, value)),
  };
}

async function hostWith(...names: string[]): Promise<MemoryHost> {
  const host = new MemoryHost({ containers: 1, lines: 0, machine: "running" });
  for (const name of names) await host.createMachine({ name, cpus: null, memoryMib: null, diskGib: null });
  return host;
}

function shown(host: MemoryHost): string {
  let name = "";
  const hear = (news: MachineNews) => (name = news.kind === "seen" ? news.machine.name : news.kind);
  host.watchMachine(hear)();
  return name;
}

describe("the machine that was shown last", () => {
  it("is shown again", async () => {
    const [host, choices] = [await hostWith("build"), memory()];
    await recallMachine(host, choices);
    expect(shown(host)).toBe("default");
    rememberMachine("build", choices);
    await recallMachine(host, choices);
    expect(shown(host)).toBe("build");
  });

  it("is forgotten once it is gone, and not waited for where no daemon answers", async () => {
    const [host, choices] = [await hostWith(), memory()];
    rememberMachine("build", choices);
    const silent = { machines: () => host.machines(), chooseMachine: (name: string) => host.chooseMachine(name), watchMachine: () => () => undefined };
    await recallMachine(silent, choices, 1);
    expect(choices.get("machine")).toBe("build");
    await recallMachine(host, choices);
    expect([shown(host), choices.get("machine")]).toEqual(["default", null]);
  });

  it("yields to the one that the environment names", async () => {
    const [host, choices] = [await hostWith("build", "named"), memory()];
    rememberMachine("build", choices);
    await host.chooseMachine("named");
    await recallMachine(host, choices);
    expect(shown(host)).toBe("named");
  });
});

it("a theme is the desktop's until one is chosen, and whatever else was kept is none", () => {
  const [choices, root] = [memory(), { dataset: {} as DOMStringMap }];
  expect(chosenTheme(choices)).toBe("system");
  chooseTheme("dark", choices, root);
  expect([chosenTheme(choices), root.dataset["theme"]]).toEqual(["dark", "dark"]);
  chooseTheme("system", choices, root);
  expect([chosenTheme(choices), root.dataset["theme"]]).toEqual(["system", "system"]);
  choices.set("theme", "neon");
  expect(chosenTheme(choices)).toBe("system");
});

it("shortcuts of a single character are heard until they are turned off, which the next start remembers", () => {
  const choices = memory();
  const keys = new SingleKeys(choices);
  expect(keys.on).toBe(true);
  keys.on = false;
  expect([keys.on, new SingleKeys(choices).on]).toEqual([false, false]);
  keys.on = true;
  expect([new SingleKeys(choices).on, choices.get("single-keys")]).toEqual([true, null]);
});
