import { flushSync } from "svelte";
import { expect, it, vi } from "vitest";
import { HostError } from "../host";
import { buttons, dismiss, leave, memory, mounted, one, press, words } from "../mounted";
import { Engine } from "../state/engine.svelte";
import FormDialog from "./FormDialog.svelte";

/** A dialog whose work a test ends by hand. */
function dialog(more: { ready?: boolean; stays?: boolean; ofEngine?: boolean; command?: string } = {}) {
  let end: () => void = () => undefined;
  let fail: (error: Error) => void = () => undefined;
  const submit = vi.fn(() => new Promise<void>((resolve, reject) => ([end, fail] = [resolve, reject])));
  const close = vi.fn();
  const engine = new Engine(memory());
  const page = mounted(FormDialog, { title: "Create a volume", action: "Create", submit, close, ...more }, engine);
  return {
    page,
    submit,
    close,
    engine,
    settle: async (error?: Error) => {
      if (error === undefined) end();
      else fail(error);
      await new Promise((done) => setTimeout(done));
      flushSync();
    },
  };
}

it("what fails is said in the dialog, which stays for another try", async () => {
  const { page, submit, close, settle } = dialog();
  press(page, "Create");
  await settle(new HostError("there is a volume data already", "Choose another name.", null, "conflict"));
  expect(words(one(page, "[role=alert]"))).toBe("Something else is in the way. there is a volume data already Choose another name.");
  expect(close).not.toHaveBeenCalled();
  press(page, "Create");
  expect([page.querySelector("[role=alert]"), submit.mock.calls.length]).toEqual([null, 2]);
  await settle();
  expect(close).toHaveBeenCalledOnce();
});

it("does it once, however often Enter is struck", async () => {
  const { page, submit, settle } = dialog();
  press(page, "Create");
  expect(buttons(page)).toEqual(["Cancel"]);
  const form = one<HTMLFormElement>(page, "form");
  form.dispatchEvent(new Event("submit", { cancelable: true }));
  await settle();
  expect(submit).toHaveBeenCalledOnce();
});

it("does nothing before it is ready, not even by Enter in a field", () => {
  const { page, submit } = dialog({ ready: false });
  expect(buttons(page)).toEqual(["Cancel"]);
  one(page, "form").dispatchEvent(new Event("submit", { cancelable: true }));
  expect(submit).not.toHaveBeenCalled();
});

it("can be left at any time, unless that would call nothing back", async () => {
  const left = dialog();
  press(left.page, "Create");
  expect(dismiss(left.page)).toBe(false);
  expect(left.close).toHaveBeenCalledOnce();
  const { page, close, settle } = dialog({ stays: true });
  press(page, "Create");
  expect([dismiss(page), buttons(page), close.mock.calls.length]).toEqual([true, [], 0]);
  await settle(new Error("refused"));
  expect(dismiss(page)).toBe(false);
  expect(close).toHaveBeenCalledOnce();
});

it("whoever has left it is not led away when it ends", async () => {
  const { page, close, settle } = dialog();
  press(page, "Create");
  await leave(page);
  await settle();
  expect(close).not.toHaveBeenCalled();
});

it("waits for an engine that is lost and says so, where it is the engine that does it", () => {
  const lost = { message: "cannot reach the engine", hint: "" };
  const { page, engine, submit } = dialog();
  engine.lost = lost;
  flushSync();
  expect([words(one(page, "[role=status]")), buttons(page)]).toEqual(["The engine does not answer.", ["Cancel"]]);
  one(page, "form").dispatchEvent(new Event("submit", { cancelable: true }));
  expect(submit).not.toHaveBeenCalled();
  const other = dialog({ ofEngine: false });
  other.engine.lost = lost;
  flushSync();
  expect([words(one(other.page, "[role=status]")), buttons(other.page)]).toEqual(["", ["Cancel", "Create"]]);
});

it("shows the command that does the same, whose copying does nothing else", () => {
  const { page, submit } = dialog({ command: "docker volume create data" });
  expect(words(one(page, "code"))).toBe("docker volume create data");
  press(page, "Copy command");
  expect(submit).not.toHaveBeenCalled();
});
