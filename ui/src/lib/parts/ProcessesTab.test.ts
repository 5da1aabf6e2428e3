import { flushSync } from "svelte";
import { SvelteMap } from "svelte/reactivity";
import { expect, it, vi } from "vitest";
import type { ProcessTable } from "../host";
import { all, memory, mounted } from "../mounted";
import ProcessesTab from "./ProcessesTab.svelte";

it("the processes of one container are never shown as those of another, or of one that has begun anew", async () => {
  const host = memory(2);
  const waiting: ((table: ProcessTable) => void)[] = [];
  vi.spyOn(host, "processes").mockImplementation(() => new Promise((answer) => waiting.push(answer)));
  const shown = new SvelteMap<string, string | boolean>([["id", "a"], ["running", true]]);
  const page = mounted(ProcessesTab, {
    host,
    get id() { return String(shown.get("id")); },
    get running() { return shown.get("running") === true; },
  });
  const cells = () => all(page, "td");
  const answer = async (name: string) => {
    waiting.shift()?.({ titles: ["COMMAND"], rows: [[name]] });
    await expect.poll(cells).toEqual([name]);
  };
  await answer("nginx");
  shown.set("id", "b");
  flushSync();
  expect(cells()).toEqual([]);
  await answer("postgres");
  shown.set("running", false);
  flushSync();
  shown.set("running", true);
  flushSync();
  expect(cells()).toEqual([]);
});
