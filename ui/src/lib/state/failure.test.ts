import { expect, it } from "vitest";
import { HostError } from "../host";
import { failureOf, headOf } from "./failure";

it("a failure of a known kind has a head in the window's language, and says itself what it did", () => {
  const failure = failureOf(new HostError("the name `a` is in use", "Choose another name.", null, "conflict"));
  expect(failure).toEqual({ message: "the name `a` is in use", hint: "Choose another name.", kind: "conflict" });
  expect(headOf(failure)).toBe("Something else is in the way.");
});

it("a failure of no kind, or of one that another release knows, has none", () => {
  const strange = Object.assign(new Error("no"), { kind: "toString" });
  for (const thrown of [new HostError("no"), new Error("no"), "no", strange]) {
    const failure = failureOf(thrown);
    expect(failure).toEqual({ message: "no", hint: "" });
    expect(headOf(failure)).toBe("");
  }
});

it("a registry to sign in to is kept", () => {
  expect(failureOf(new HostError("no", "", "private.example")).registry).toBe("private.example");
});
