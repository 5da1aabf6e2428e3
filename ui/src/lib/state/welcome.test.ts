import { afterEach, describe, expect, it } from "vitest";
import { MemoryHost } from "../host/memory";
import { de } from "../words/de";
import { en } from "../words/en";
import { Containers } from "./containers.svelte";
import { Tasks } from "./tasks.svelte";
import { Welcome, welcomeSpec } from "./welcome.svelte";

let stop: () => void = () => undefined;

function scene() {
  const host = new MemoryHost({ containers: 0, lines: 0, machine: "running" });
  const tasks = new Tasks();
  const containers = new Containers(host, tasks);
  stop = containers.follow();
  const opened: number[] = [];
  host.openPort = async (port) => void opened.push(port);
  return { host, tasks, containers, opened, welcome: new Welcome(host, tasks, containers) };
}

afterEach(() => stop());

describe("the welcome page", () => {
  it("is opened once its container runs, and found again without another one", async () => {
    const { tasks, containers, opened, welcome } = scene();
    const pressed = welcome.open();
    expect(welcome.busy).toBe(true);
    // Pressed twice, it is run once.
    await welcome.open();
    await pressed;
    expect(welcome.busy).toBe(false);
    expect(tasks.list.map((task) => [task.state, task.about.command.slice(0, 83)])).toEqual([
      ["done", "docker run --detach --name cove-welcome-page --publish 127.0.0.1::80 alpine sh -c '"],
    ]);
    const host = containers.rows?.[0]?.ports[0]?.host;
    expect(opened).toEqual([host]);
    await welcome.open();
    expect(opened).toEqual([host, host]);
    expect(containers.rows?.length).toBe(1);
    expect(tasks.list.length).toBe(1);
  });

  it("is there again when its container was stopped or paused", async () => {
    const { host, tasks, containers, opened, welcome } = scene();
    await welcome.open();
    const id = containers.rows?.[0]?.id ?? "";
    await host.act("stop", id);
    await welcome.open();
    await host.act("pause", id);
    await welcome.open();
    expect(opened.length).toBe(3);
    expect(containers.row(id)?.state).toBe("running");
    expect(tasks.list.map((task) => task.about.command).slice(0, 2)).toEqual(["docker unpause cove-welcome-page", "docker start cove-welcome-page"]);
  });

  it("does not open where its container did not come to run, and says why", async () => {
    const { host, tasks, opened, welcome } = scene();
    host.run = () => Promise.reject(new Error("no space left on device"));
    await welcome.open();
    expect(opened).toEqual([]);
    expect(tasks.list[0]?.failure?.message).toBe("no space left on device");
    expect(welcome.busy).toBe(false);
  });

  it("has words that mean nothing to the shell that writes them, in each language", () => {
    for (const words of [en, de]) {
      for (const word of ["welcomeTitle", "welcomeFrom", "welcomeHow"] as const) expect(words[word]).not.toMatch(/["'`$\\<&]/);
    }
    expect(welcomeSpec().command.join(" ")).toContain(`<h1>${en.welcomeTitle}</h1>`);
  });

  it("is the page of `cargo xtask run` as well, which reads it in English from a file", async () => {
    // Written anew by `npm test -- --update`.
    await expect(`${JSON.stringify(welcomeSpec(), null, 2)}\n`).toMatchFileSnapshot("welcome.json");
  });
});
