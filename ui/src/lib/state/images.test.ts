import { expect, it } from "vitest";
import type { ImageRow } from "../host";
import { MemoryHost } from "../host/memory";
import { Images, removalCommand, removalOf } from "./images.svelte";
import { Tasks } from "./tasks.svelte";

const image = (id: string, tags: string[], users: string[] = []): ImageRow => ({ id: `sha256:${id.repeat(64)}`, tags, size: 1, createdMs: 0, users });

it("the command that is shown removes what the window removes, and forces no more", () => {
  const rows = [image("a", ["web:1"]), image("b", ["api:1", "api:2"]), image("c", []), image("d", ["db:1"], ["shop-db-1"])];
  expect(removalCommand(rows).split("\n")).toEqual([
    `docker rmi web:1 sha256:${"c".repeat(64)}`,
    `docker rmi --force sha256:${"b".repeat(64)} db:1`,
  ]);
  expect(rows.map(removalOf).map(({ force }) => force)).toEqual([false, true, false, true]);
});

it("clearing away is a task that says how many went and what is free again", async () => {
  const images = new Images(new MemoryHost({ containers: 14, lines: 0, machine: "running" }), new Tasks());
  await images.prune(true);
  const [task] = images.tasks.list;
  expect([task?.about.command, task?.state, task?.cancellable]).toEqual(["docker image prune --all", "done", false]);
  expect(task?.lines).toEqual(["2 removed, 377 MiB free again"]);
});
