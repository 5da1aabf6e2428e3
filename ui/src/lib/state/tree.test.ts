import { expect, it } from "vitest";
import { treeRows } from "./tree";

const VALUE = { Id: "4f6e", Config: { Env: ["PATH=/bin", "TZ=UTC"], Labels: { "a.b": "x" } }, Mounts: [], State: null };

it("shows what is open, and paths that jq takes", () => {
  const closed = treeRows(VALUE, new Set(), "");
  expect(closed.map((row) => [row.path, row.text])).toEqual([[".Id", '"4f6e"'], [".Config", "{2}"], [".Mounts", "[0]"], [".State", "null"]]);
  const open = treeRows(VALUE, new Set([".Config", ".Config.Labels"]), "");
  expect(open.map((row) => row.path)).toContain('.Config.Labels["a.b"]');
});

it("finds keys and values, with the way there and what is in a branch that is found", () => {
  expect(treeRows(VALUE, new Set(), "utc").map((row) => row.path)).toEqual([".Config", ".Config.Env", ".Config.Env[1]"]);
  expect(treeRows(VALUE, new Set(), "ENV").map((row) => row.path)).toEqual([".Config", ".Config.Env", ".Config.Env[0]", ".Config.Env[1]"]);
  expect(treeRows(VALUE, new Set(), "nowhere")).toEqual([]);
});
