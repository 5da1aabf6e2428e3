import { flushSync } from "svelte";
import { afterEach, beforeEach, expect, it, onTestFinished, vi } from "vitest";
import { HostError, type LogLine } from "../host";
import { all, buttons, control, fill, mounted, one, press, strike, words } from "../mounted";
import LogView from "./LogView.svelte";

const AT = Date.UTC(2026, 2, 1, 12, 30, 15, 250);

beforeEach(() => {
  // Lines are drawn that fit into a view of this height.
  vi.spyOn(HTMLElement.prototype, "clientHeight", "get").mockReturnValue(400);
});
afterEach(() => void vi.restoreAllMocks());

function line(text: string, more: Partial<LogLine> = {}): LogLine {
  return { atMs: AT, stream: "stdout", text, ...more };
}

/** A log of these lines, and what is typed into it. */
function log(lines: LogLine[], more: { timed?: boolean; split?: boolean } = {}) {
  const files = { saveText: vi.fn<(name: string, text: string) => Promise<string | null>>().mockResolvedValue("/home/mara/web.log") };
  const host = {
    followLog: (_: string, seen: (lines: LogLine[]) => void) => {
      seen(lines);
      return () => undefined;
    },
  };
  const page = mounted(LogView, { host, files, id: "a", title: "web", ...more });
  return { page, files, pane: one(page, "[role=log]"), drawn: () => all(page, ".line"), foot: () => words(one(page, ".foot p")) };
}

it("a line shows its level by its class, and the error output by a mark that is read out", () => {
  const { page } = log([
    line("ERROR it broke"),
    line("level=warn slow"),
    line("[debug] asked"),
    line("there was no error"),
    line(" aside", { stream: "stderr" }),
  ]);
  const classes = [...page.querySelectorAll(".line")].map((row) => ["error", "warning", "debug", "err"].filter((name) => row.classList.contains(name)));
  expect(classes).toEqual([["error"], ["warning"], ["debug"], [], ["err"]]);
  expect([...page.querySelectorAll("[role=img]")].map((mark) => [mark.getAttribute("aria-label"), words(mark.parentElement)])).toEqual([["Error output", "E aside"]]);
});

it("colours and boldness are drawn, and other sequences are not", () => {
  const { page } = log([line("\u001b[1;31mbad\u001b[0m \u001b[2Kand \u001b[92mgood")]);
  const parts = [...page.querySelectorAll(".line > span")].map((span) => [span.textContent, ...["bold", "c1", "c2"].filter((name) => span.classList.contains(name))]);
  expect(parts).toEqual([["bad", "bold", "c1"], [" "], ["and "], ["good", "c2"]]);
});

it("what looks like HTML is text", () => {
  const { page, drawn } = log([line("<img src=x onerror=alert(1)> &amp;")]);
  expect([drawn(), page.querySelector("img")]).toEqual([["<img src=x onerror=alert(1)> &amp;"], null]);
});

it("times are shown when asked for, as wide where none is known", () => {
  // By this computer's clock, and without a day since it is today.
  const atMs = new Date().setHours(12, 30, 15, 250);
  const { page } = log([line("one", { atMs }), line("two", { atMs: 0 })]);
  const times = () => [...page.querySelectorAll(".time")].map((time) => time.textContent);
  expect(times()).toEqual([]);
  press(page, "Times");
  expect(times()).toEqual(["12:30:15.250", " ".repeat(12)]);
});

it("a search counts what matches, with context that is told apart, and says where a pattern is none", () => {
  const { page, drawn, foot } = log(["a", "b", "c", "d", "needle", "e", "f", "g", "h"].map((text) => line(text)));
  expect(foot()).toBe("9 lines");
  fill(page, "Search", "NEEDLE");
  expect([drawn(), foot()]).toEqual([["needle"], "1 matches"]);
  press(page, "Context");
  expect([drawn(), all(page, ".around")]).toEqual([["b", "c", "d", "needle", "e", "f", "g"], ["b", "c", "d", "e", "f", "g"]]);
  press(page, "Regex");
  fill(page, "Search", "[a-");
  expect([foot(), control(page, "Search").getAttribute("aria-invalid"), drawn().length]).toEqual(["not a valid pattern", "true", 9]);
  fill(page, "Search", "^[ab]$");
  expect([foot(), control(page, "Search").getAttribute("aria-invalid")]).toEqual(["2 matches", "false"]);
});

it("each stream can be had alone, where there are two", () => {
  const lines = [line("out"), line("err", { stream: "stderr" }), line("more")];
  const { page, drawn, foot } = log(lines);
  press(page, "Errors");
  expect([drawn(), foot(), control(page, "Errors").getAttribute("aria-pressed")]).toEqual([["Eerr"], "1 of 3 lines", "true"]);
  press(page, "Output");
  expect(drawn()).toEqual(["out", "more"]);
  press(page, "Both");
  expect([drawn().length, foot()]).toEqual([3, "3 lines"]);
  const machine = log(lines, { timed: false, split: false }).page;
  expect(buttons(machine)).toEqual(["Regex", "Context", "Wrap", "Follow", "Save…"]);
});

it("Escape ends a selection first, and only then goes on to the window", () => {
  const { page, pane, foot } = log([line("one"), line("two")]);
  const heard = vi.fn();
  window.addEventListener("keydown", heard);
  onTestFinished(() => window.removeEventListener("keydown", heard));
  expect(strike(pane, "a", { ctrlKey: true })).toBe(false);
  expect([foot(), all(page, ".chosen")]).toEqual(["2 lines · 2 selected", ["one", "two"]]);
  heard.mockClear();
  strike(pane, "Escape");
  expect([foot(), heard.mock.calls.length]).toEqual(["2 lines", 0]);
  expect(strike(pane, "Escape")).toBe(true);
  expect(heard.mock.calls).toHaveLength(1);
});

it("lines are selected by keys, and copied with their times where these are shown", async () => {
  const write = vi.spyOn(navigator.clipboard, "writeText").mockResolvedValueOnce().mockRejectedValueOnce(new Error("not allowed"));
  const { page, pane, foot } = log([line("one"), line("\u001b[31mtwo"), line("three")]);
  expect([strike(pane, "c", { ctrlKey: true }), buttons(page).includes("Copy")]).toEqual([true, false]);
  strike(pane, "ArrowDown", { shiftKey: true });
  strike(pane, "ArrowDown", { shiftKey: true });
  const chosen = all(page, ".chosen");
  expect(chosen).toContain("two");
  press(page, "Times");
  expect(strike(pane, "c", { ctrlKey: true })).toBe(false);
  await expect.poll(foot).toContain("Copied");
  expect(write.mock.calls[0]?.[0]).toBe(chosen.map((text) => `2026-03-01T12:30:15.250Z ${text}`).join("\n"));
  press(page, "Copy");
  await expect.poll(foot).toContain("not allowed");
});

it("saving says where to, why not, and nothing where no place was chosen", async () => {
  const { page, files, foot } = log([line("\u001b[31mone")]);
  press(page, "Save…");
  await expect.poll(foot).toBe("1 lines · Saved as /home/mara/web.log");
  expect(files.saveText.mock.calls).toEqual([["web.log", "one\n"]]);
  files.saveText.mockRejectedValueOnce(new HostError("no space left", "Free some.", null, "disk_full"));
  press(page, "Save…");
  await expect.poll(foot).toBe("1 lines There is no space left. no space left Free some.");
  files.saveText.mockResolvedValueOnce(null);
  press(page, "Save…");
  await new Promise((done) => setTimeout(done));
  flushSync();
  expect(foot()).toBe("1 lines");
  expect(buttons(log([]).page)).not.toContain("Save…");
});

it("of a long log only what is seen is drawn", () => {
  const { drawn, foot } = log(Array.from({ length: 5000 }, (_, at) => line(`${at}`)));
  expect(foot()).toBe("5,000 lines");
  expect(drawn().length).toBeLessThan(100);
});
