import { flushSync } from "svelte";
import { expect, it, vi } from "vitest";
import { engineGoesOn, Tasks } from "../state/tasks.svelte";
import { memory, mounted, one, press, words } from "../mounted";
import Closing from "./Closing.svelte";

const forever = () => new Promise<never>(() => undefined);

/** A window that somebody wants to close, and what it answers. */
function opened() {
  const [host, tasks, lost] = [memory(0), new Tasks(), [] as string[]];
  const answer = vi.spyOn(host, "answerClosing").mockResolvedValue();
  const page = mounted(Closing, { host, tasks, unsaved: () => lost });
  const close = () => {
    window.dispatchEvent(new Event("cove-close"));
    flushSync();
  };
  return { page, tasks, lost, close, answers: () => answer.mock.calls.map(([closes]) => closes) };
}

it("a window closes at once where nothing ends with it, or only what the engine goes on with", () => {
  const { page, tasks, close, answers } = opened();
  tasks.begin({ title: "Commit web", command: "", ...engineGoesOn() }, forever);
  close();
  expect([answers(), page.querySelector("dialog")]).toEqual([[true], null]);
});

it("tasks under way and what is not saved are named before they end with the window", () => {
  const { page, tasks, lost, close, answers } = opened();
  tasks.begin({ title: "Pull alpine", command: "" }, forever);
  close();
  expect(words(one(page, "dialog p"))).toBe("Close the window? Tasks under way are cancelled: Pull alpine.");
  expect(answers()).toEqual([false]);
  press(page, "Cancel");
  expect([answers(), page.querySelector("dialog")]).toEqual([[false], null]);
  lost.push("Settings");
  close();
  expect(words(one(page, "dialog p"))).toBe("Close the window? Tasks under way are cancelled: Pull alpine. What was typed and is not saved is lost: Settings.");
  press(page, "Close the window");
  expect(answers()).toEqual([false, false, true]);
});
