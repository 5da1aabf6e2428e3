import { describe, expect, it } from "vitest";
import { HostError } from "../host";
import { BUNDLE_NAME, Diagnostics } from "./diagnostics.svelte";

describe("the diagnostics bundle", () => {
  it("is saved as it was shown, once it was shown", async () => {
    const saved: [string, string][] = [];
    let gathered = 0;
    const diagnostics = new Diagnostics({
      diagnostics: () => Promise.resolve(`bundle ${(gathered += 1)}`),
      saveText: (name, text) => {
        saved.push([name, text]);
        return Promise.resolve(`/home/mara/${name}`);
      },
    });
    await diagnostics.save();
    expect(saved).toEqual([]);
    await Promise.all([diagnostics.gather(), diagnostics.gather()]);
    expect([gathered, diagnostics.text]).toEqual([1, "bundle 1"]);
    await diagnostics.save();
    expect(saved).toEqual([[BUNDLE_NAME, "bundle 1"]]);
    expect(diagnostics.place).toBe(`/home/mara/${BUNDLE_NAME}`);
    await diagnostics.gather();
    expect([diagnostics.text, diagnostics.place], "what is shown now was not saved").toEqual(["bundle 2", null]);
  });

  it("stays as it is where a person names no file, and says why it cannot be written", async () => {
    let asked = 0;
    const refusal = new HostError("cannot write /x", "Choose another folder.");
    const diagnostics = new Diagnostics({
      diagnostics: () => Promise.resolve("bundle"),
      saveText: () => ((asked += 1) === 1 ? Promise.resolve(null) : Promise.reject(refusal)),
    });
    await diagnostics.gather();
    await diagnostics.save();
    expect([diagnostics.place, diagnostics.failure]).toEqual([null, null]);
    await diagnostics.save();
    expect(diagnostics.failure?.message).toBe("cannot write /x");
    expect([diagnostics.text, diagnostics.busy]).toEqual(["bundle", false]);
  });
});
