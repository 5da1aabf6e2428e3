import { flushSync } from "svelte";
import { expect, it } from "vitest";
import { HostError, type Job, type TaskStep } from "../host";
import { all, buttons, mounted, one, press, words } from "../mounted";
import { type About, Tasks } from "../state/tasks.svelte";
import TaskDrawer from "./TaskDrawer.svelte";

const PULL = { title: "Pull nginx", command: "docker pull nginx" };

/** A drawer with one task that goes on until a test ends it. */
function drawer(about: About = PULL) {
  const tasks = new Tasks();
  let fail: (error: Error) => void = () => undefined;
  let job: Job | undefined;
  const work = (given: Job) => {
    job = given;
    return new Promise<void>((_, reject) => {
      fail = reject;
      given.signal.addEventListener("abort", () => reject(new HostError("cancelled")));
    });
  };
  const { ended } = tasks.begin(about, work);
  tasks.open = true;
  const page = mounted(TaskDrawer, { tasks });
  return {
    tasks,
    page,
    tell: (...steps: TaskStep[]) => {
      for (const step of steps) job?.tell(step);
      flushSync();
    },
    failed: async (error: Error) => {
      fail(error);
      await ended;
      flushSync();
    },
    ended,
  };
}

it("says what shows there while there is nothing", () => {
  const page = mounted(TaskDrawer, { tasks: new Tasks() });
  expect(words(one(page, "p"))).toBe("What takes longer shows here while it goes on: pulls, backups, builds.");
  expect(buttons(page)).toEqual(["Close"]);
});

it("shows how far a task is in all and in each part, and nothing of that once it has ended", async () => {
  const { page, tell, ended, tasks } = drawer();
  const bars = () => [...page.querySelectorAll("progress")].map((bar) => [bar.getAttribute("aria-label"), bar.getAttribute("value")]);
  expect(bars()).toEqual([["Pull nginx", null]]);
  tell({ kind: "whole", message: "Downloading", fraction: 0.25 });
  tell({ kind: "part", id: "a", label: "5d2fe4a7", note: "Downloading", fraction: 0.5 });
  tell({ kind: "part", id: "b", label: "9c1d0b3e", note: "Waiting", fraction: null });
  expect(bars()).toEqual([["Pull nginx", "0.25"], ["5d2fe4a7: Downloading", "0.5"]]);
  expect(all(page, ".parts .mono")).toEqual(["5d2fe4a7", "9c1d0b3e"]);
  expect(words(one(page, ".detail > .quiet"))).toBe("Downloading");
  press(page, "Cancel");
  await ended;
  flushSync();
  expect(bars().map(([label]) => label)).toEqual(["5d2fe4a7: Downloading"]);
  expect(page.querySelector(".detail > .quiet")).toBeNull();
  expect(words(one(page, "li"))).toBe("Pull nginx cancelled");
  // Who cancelled it is told no failure.
  expect([page.querySelector(".bad"), buttons(page)]).toEqual([null, ["Clear ended", "Close", "Pull nginx cancelled", "Copy command"]]);
  press(page, "Clear ended");
  expect(tasks.list).toEqual([]);
  expect(buttons(page)).toEqual(["Close"]);
});

it("offers no cancelling where there is none, and says so only while it matters", async () => {
  const stop = { title: "Stop the machine", command: "cove stop", cancel: { can: false, note: "A stop cannot be cancelled." } };
  const { page, failed } = drawer(stop);
  expect(buttons(page)).toEqual(["Close", "Stop the machine running", "Copy command"]);
  expect(words(page)).toContain(stop.cancel.note);
  await failed(new HostError("the daemon went away"));
  expect(words(page)).not.toContain(stop.cancel.note);
});

it("says what kind of failure it was, why and what to do, with a way to sign in where that may help", async () => {
  const { page, failed } = drawer({ title: "Pull shop/api", command: "" });
  await failed(new HostError("no basic auth credentials", "Sign in to private.example.", "private.example", "registry"));
  expect(words(one(page, ".detail .bad"))).toBe("It failed at the registry, or on the way there. no basic auth credentials");
  expect(words(one(page, ".bad + .quiet"))).toBe("Sign in to private.example. Sign in to private.example");
  expect(one(page, ".detail a").getAttribute("href")).toBe("#/registries/new/private.example");
  // No one command does it.
  expect(buttons(page)).not.toContain("Copy command");
});

it("writes lines without their colours, and draws the last four hundred", () => {
  const { page, tell } = drawer();
  tell(...Array.from({ length: 401 }, (_, line): TaskStep => ({ kind: "line", text: `\u001b[31mstep\u001b[0m ${line}` })));
  const drawn = one(page, "pre").textContent?.split("\n") ?? [];
  expect([drawn.length, drawn[0], drawn.at(-1)]).toEqual([400, "step 1", "step 400"]);
});

it("shows the task that is chosen, and clears the ended ones only", async () => {
  const { page, tasks } = drawer();
  await tasks.begin({ title: "Remove web", command: "docker rm web" }, () => Promise.reject(new HostError("it is in use"))).ended;
  flushSync();
  expect(all(page, "h3")).toEqual(["Remove web"]);
  press(page, "Pull nginx running");
  expect(all(page, "h3")).toEqual(["Pull nginx"]);
  expect(all(page, "[aria-current]")).toEqual(["Pull nginx running"]);
  expect(page.querySelector(".bad")).toBeNull();
  press(page, "Clear ended");
  expect(all(page, "li")).toEqual(["Pull nginx running"]);
});

it("takes back what can be taken back, once", async () => {
  const names = ["new"];
  const tasks = new Tasks();
  const page = mounted(TaskDrawer, { tasks });
  tasks.done({ title: "Rename a to b", command: "docker rename a b", back: { command: "docker rename b a", work: async () => names.push("old") } });
  await expect.poll(() => buttons(page)).toContain("Undo");
  press(page, "Undo");
  await expect.poll(() => all(page, "h3")).toEqual(["Undo: Rename a to b"]);
  press(page, "Rename a to b done");
  expect([names, buttons(page).includes("Undo")]).toEqual([["new", "old"], false]);
});
