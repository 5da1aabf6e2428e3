import { describe, expect, it } from "vitest";
import type { ImageRow } from "../host";
import { MemoryHost } from "../host/memory";
import { Listing, some } from "./listing.svelte";
import { Tasks } from "./tasks.svelte";

const JOB = { signal: new AbortController().signal, tell: () => undefined };
const settled = () => new Promise((done) => setTimeout(done, 0));

async function images() {
  const host = new MemoryHost({ containers: 14, lines: 0, machine: "running" });
  const listing = new Listing<ImageRow>(host, {
    read: () => host.images(),
    key: (row) => row.id,
    text: (row) => row.tags.join(" "),
    kinds: ["image", "container"],
  });
  const stop = listing.follow();
  await settled();
  return { host, listing, stop };
}

describe("a list of things", () => {
  it("shows what another client did without being asked", async () => {
    const { host, listing, stop } = await images();
    expect(listing.row("none")).toBeUndefined();
    await host.pullImage("busybox:1.37", JOB);
    await settled();
    expect(listing.rows?.some((row) => row.tags.includes("busybox:1.37"))).toBe(true);
    stop();
  });

  it("is shown to who leaves it and comes back while it is read", async () => {
    const { listing, stop } = await images();
    stop();
    listing.rows = null;
    listing.follow()();
    const stopAgain = listing.follow();
    await settled();
    expect(listing.rows).not.toBeNull();
    stopAgain();
  });

  it("reads once more for a change that came while it was being read, and never two at once", async () => {
    const { host, listing, stop } = await images();
    let under = 0;
    let most = 0;
    let count = 0;
    const read = listing.source.read;
    listing.source.read = async () => {
      under += 1;
      count += 1;
      most = Math.max(most, under);
      await settled();
      under -= 1;
      return read();
    };
    const [first, second] = listing.rows ?? [];
    await host.tagImage(first?.id ?? "", "one:1");
    await host.tagImage(second?.id ?? "", "two:1");
    for (let round = 0; round < 6; round += 1) await settled();
    expect([most, count]).toEqual([1, 2]);
    expect(listing.rows?.some((row) => row.tags.includes("two:1"))).toBe(true);
    stop();
  });

  it("goes on after one that failed, keeps that one selected, and says why", async () => {
    const { host, listing, stop } = await images();
    const used = listing.rows?.find((row) => row.users.length > 0);
    const unused = listing.rows?.find((row) => row.users.length === 0);
    if (used === undefined || unused === undefined) throw new Error("one of each is needed");
    listing.toggle(used.id);
    listing.toggle(unused.id);
    expect(await listing.each(listing.chosen, (row) => host.removeImage(row.id, false))).toBe(false);
    expect(listing.failure?.message).toContain("must force");
    await settled();
    expect(listing.row(unused.id)).toBeUndefined();
    expect([...listing.selected]).toEqual([used.id]);
    expect(listing.busy.size).toBe(0);
    stop();
  });

  it("is told as a task which of several failed, and that of each", async () => {
    const { host, listing, stop } = await images();
    const tasks = new Tasks();
    const rows = listing.rows ?? [];
    const used = rows.filter((row) => row.users.length > 0);
    const about = { title: "Remove all", command: "docker rmi" };
    const remove = (row: ImageRow) => host.removeImage(row.id, false);
    expect(await listing.each(rows, remove, { tasks, about, name: (row) => row.tags[0] ?? row.id })).toBe(false);
    const [task] = tasks.list;
    const failed = [...(task?.parts.values() ?? [])].filter((part) => part.note.startsWith("failed: conflict"));
    expect(failed.map((part) => part.label)).toEqual(used.map((row) => row.tags[0]));
    expect(task?.failure?.message).toContain(`${used.length} of ${rows.length} failed: conflict`);
    expect([listing.failure, listing.busy.size]).toEqual([null, 0]);
    stop();
  });

  it("is done to a few rows at once", async () => {
    const { listing, stop } = await images();
    let [under, most] = [0, 0];
    await listing.each(listing.rows ?? [], async () => {
      under += 1;
      most = Math.max(most, under);
      await settled();
      under -= 1;
    });
    expect(most).toBe(4);
    stop();
  });

  it("is sorted by a column one way, the other, and not at all", async () => {
    const { listing, stop } = await images();
    const compares = [null, (one: ImageRow, other: ImageRow) => one.size - other.size];
    const sizes = () => listing.sorted(compares).map((row) => row.size);
    const own = sizes();
    listing.sortBy(1);
    expect(sizes()).toEqual([...own].sort((one, other) => one - other));
    listing.sortBy(1);
    expect(sizes()).toEqual([...own].sort((one, other) => other - one));
    listing.sortBy(1);
    expect(sizes()).toEqual(own);
    stop();
  });

  it("selects what is shown and nothing else", async () => {
    const { listing, stop } = await images();
    listing.search = "shop api";
    listing.toggleAll();
    expect(listing.chosen.map((row) => row.tags[0])).toEqual(["shop/api:dev"]);
    listing.toggleAll();
    expect(listing.selected.size).toBe(0);
    stop();
  });
});

it("many names are cut and counted", () => {
  expect(some(["a", "b"])).toBe("a, b");
  expect(some(["a", "b", "c", "d", "e", "f", "g"])).toBe("a, b, c, d, e + 2");
});
