import { expect, it } from "vitest";
import { columnsOf } from "./columns";

it("counts columns as a monospace font draws them", () => {
  for (const [text, columns] of [
    ["", 0],
    ["GET /healthz 200", 16],
    ["für", 3],
    ["✓ ok", 4],
    ["日本", 4],
    ["🚀!", 3],
    ["e\u0301", 1],
    ["\u200b", 0],
  ] as const)
    expect(columnsOf(text), text).toBe(columns);
});

it("lets a tab go to the next column that 8 divides", () => {
  expect(["\t", "a\tb", "1234567\t", "12345678\t", "日本\tx"].map(columnsOf)).toEqual([8, 9, 8, 16, 9]);
});
