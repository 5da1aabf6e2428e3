import { flushSync } from "svelte";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { HostError } from "../host";
import { all, buttons, mounted, one, press, words } from "../mounted";
import { Tasks } from "../state/tasks.svelte";
import Toasts from "./Toasts.svelte";

/** Longer than a good end is told, and shorter than twice that. */
const LONG = 7000;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function toasts() {
  const tasks = new Tasks();
  const page = mounted(Toasts, { tasks });
  return {
    tasks,
    page,
    told: () => all(page, ".toast > div > .cut b"),
    end: async (title: string, work: () => Promise<void> = () => Promise.resolve()) => {
      await tasks.begin({ title, command: "" }, work).ended;
      flushSync();
    },
    pass: async (ms: number) => {
      await vi.advanceTimersByTimeAsync(ms);
      flushSync();
    },
  };
}

it("a good end goes by itself, and a bad one stays until it is put away", async () => {
  const { page, told, end, pass } = toasts();
  await end("Pull nginx");
  await end("Pull shop/api", () => Promise.reject(new HostError("no basic auth credentials", "", "private.example", "registry")));
  expect(all(page, ".toast p")).toEqual([
    "Pull shop/api · failed",
    "It failed at the registry, or on the way there. no basic auth credentials",
    "Pull nginx · done",
  ]);
  expect(one(page, "a").getAttribute("href")).toBe("#/registries/new/private.example");
  await pass(LONG);
  expect(told()).toEqual(["Pull shop/api"]);
  await pass(10 * LONG);
  expect(told()).toEqual(["Pull shop/api"]);
  press(page, "Close");
  expect(told()).toEqual([]);
});

it("what a person points at, or has come to by keyboard, does not go away under them", async () => {
  const { page, told, end, pass } = toasts();
  await end("Pull nginx");
  const box = one(page, "[role=status]");
  box.dispatchEvent(new Event("pointerenter"));
  await pass(LONG);
  expect(told()).toEqual(["Pull nginx"]);
  one<HTMLButtonElement>(page, "button[aria-label]").focus();
  box.dispatchEvent(new Event("pointerleave"));
  await pass(LONG);
  expect(told()).toEqual(["Pull nginx"]);
  if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
  await pass(LONG);
  expect(told()).toEqual([]);
});

it("takes no focus, and what it appears in is there before", async () => {
  const { page, end } = toasts();
  expect(words(one(page, "[role=status][aria-live=polite]"))).toBe("");
  const field = document.body.appendChild(document.createElement("input"));
  field.focus();
  await end("Pull nginx", () => Promise.reject(new HostError("refused")));
  expect(document.activeElement).toBe(field);
  field.remove();
});

it("says nothing of what was cancelled, of what is under way, and of what the drawer shows", async () => {
  const { tasks, told, end } = toasts();
  const { task, ended } = tasks.begin({ title: "Pull nginx", command: "" }, ({ signal }) => new Promise((_, reject) => signal.addEventListener("abort", reject)));
  flushSync();
  expect(told()).toEqual([]);
  task.cancel();
  await ended;
  flushSync();
  expect(told()).toEqual([]);
  tasks.toggle();
  await end("Pull redis");
  expect(told()).toEqual([]);
  tasks.toggle();
  flushSync();
  expect(told()).toEqual([]);
});

it("leads to its task, and takes back what can be taken back", async () => {
  const { tasks, page, told, end, pass } = toasts();
  await end("Pull nginx");
  expect(buttons(page)).toEqual(["Show", "Close"]);
  press(page, "Show");
  expect([tasks.open, tasks.shown?.about.title, told()]).toEqual([true, "Pull nginx", []]);
  tasks.toggle();
  const undone = vi.fn(() => Promise.resolve());
  tasks.done({ title: "Rename a to b", command: "docker rename a b", back: { command: "docker rename b a", work: undone } });
  await pass(0);
  expect(buttons(page)).toEqual(["Undo", "Show", "Close"]);
  press(page, "Undo");
  await pass(0);
  expect([undone.mock.calls.length, told()]).toEqual([1, ["Undo: Rename a to b"]]);
});
