import { expect, it, vi } from "vitest";
import { HostError } from "../host";
import { all, buttons, memory, mounted, press, words } from "../mounted";
import Checks from "./Checks.svelte";

it("each check shows its outcome, its evidence and what to do", async () => {
  const page = mounted(Checks, { host: memory() });
  expect(words(page)).toBe("Reading…");
  await expect.poll(() => all(page, ".check > span")).toEqual(["warning", "ok", "ok"]);
  expect(all(page, ".check b + .quiet")[1]).toBe("qemu-system-x86_64 10.0.2");
  // Only what is not well can be mended.
  expect(all(page, ".check p")).toEqual(["Enable virtualisation in the firmware, if this computer has it."]);
  expect(buttons(page)).toEqual(["Copy what to do", "Check again"]);
});

it("where a command does it, that is to be copied, and shown unless the advice says it", async () => {
  const host = memory();
  vi.spyOn(host, "checks").mockResolvedValue([
    { name: "network", state: "warning", evidence: "passt is missing", fix: "sudo apt install passt", command: "sudo apt install passt" },
    { name: "docker context", state: "warning", evidence: "it leads elsewhere", fix: "Make it anew.", command: "docker context rm cove && cove start" },
  ]);
  const page = mounted(Checks, { host, troubles: true });
  await expect.poll(() => all(page, ".check p")).toEqual(["sudo apt install passt", "Make it anew.", "docker context rm cove && cove start"]);
  expect(buttons(page)).toEqual(["Copy command", "Copy command", "Check again"]);
  const copied = [...page.querySelectorAll(".check button")].map((button) => button.getAttribute("title"));
  expect(copied).toEqual(["sudo apt install passt", "docker context rm cove && cove start"]);
});

it("where only troubles are asked for, nothing is said of the rest, of waiting or of not knowing", async () => {
  const host = memory();
  const page = mounted(Checks, { host, troubles: true });
  expect(words(page)).toBe("");
  await expect.poll(() => all(page, ".check > span")).toEqual(["warning"]);
  vi.spyOn(host, "checks").mockResolvedValueOnce([{ name: "QEMU", state: "ok", evidence: "", fix: "", command: null }]);
  press(page, "Check again");
  await expect.poll(() => words(page)).toBe("");
  expect(buttons(page)).toEqual([]);
  const checks = vi.spyOn(host, "checks").mockRejectedValue(new HostError("no"));
  const away = mounted(Checks, { host, troubles: true });
  await expect(checks.mock.results.at(-1)?.value).rejects.toThrow("no");
  expect(words(away)).toBe("");
});

it("says why nothing is known, where all is asked for, and tries again", async () => {
  const host = memory();
  const checks = vi.spyOn(host, "checks").mockRejectedValue(new HostError("the program does not answer", "", null, "timeout"));
  const page = mounted(Checks, { host });
  await expect.poll(() => all(page, ".bad")).toEqual(["There was no answer in time. the program does not answer"]);
  checks.mockRestore();
  press(page, "Check again");
  await expect.poll(() => all(page, ".check > span")).toEqual(["warning", "ok", "ok"]);
});

it("checks of one name are all shown, as where two folders are short of something", async () => {
  const host = memory();
  const folder = (path: string) => ({ name: "folders of default", state: "warning" as const, evidence: `\`${path}\` keeps no owners`, fix: "", command: null });
  vi.spyOn(host, "checks").mockResolvedValue([folder("/mnt/nas"), folder("/mnt/usb")]);
  for (const troubles of [false, true]) {
    const page = mounted(Checks, { host, troubles });
    await expect.poll(() => all(page, ".check .quiet")).toEqual(["`/mnt/nas` keeps no owners", "`/mnt/usb` keeps no owners"]);
  }
});
