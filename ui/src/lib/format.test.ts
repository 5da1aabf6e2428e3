import { afterEach, beforeEach, expect, it } from "vitest";
import { clock, day, moment } from "./format";

const zone = process.env["TZ"];
beforeEach(() => void (process.env["TZ"] = "Asia/Kolkata"));
afterEach(() => {
  if (zone === undefined) delete process.env["TZ"];
  else process.env["TZ"] = zone;
});

it("days and times are those of this computer's clock, and agree with each other", () => {
  const late = Date.UTC(2026, 1, 28, 20, 15, 3, 7);
  expect(day(late)).toBe("2026-03-01");
  expect(moment(late)).toBe("2026-03-01 01:45");
  expect(clock(late)).toBe("01:45:03.007");
});

it("what is no time at all is not shown as one", () => {
  expect(day(Number.NaN)).toBe("–");
  expect(moment(8.64e15 + 1)).toBe("–");
});
