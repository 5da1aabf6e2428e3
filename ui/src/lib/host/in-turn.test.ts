import { describe, expect, it } from "vitest";
import { inTurn } from "./in-turn";

/** A way out whose calls end when the test says so. */
function slow() {
  const sent: string[] = [];
  const ends: { done: () => void; failed: () => void }[] = [];
  const send = (value: string) =>
    new Promise<void>((done, failed) => {
      sent.push(value);
      ends.push({ done, failed: () => failed(new Error("lost")) });
    });
  return { sent, ends, send };
}
const settled = () => new Promise((done) => setTimeout(done));

describe("sending in turn", () => {
  it("has one call under way and joins what waits for it", async () => {
    const { sent, ends, send } = slow();
    const type = inTurn((waiting: string, next) => waiting + next, send);
    for (const key of "exit\n") type(key);
    expect(sent).toEqual(["e"]);
    ends[0]?.done();
    await settled();
    expect(sent).toEqual(["e", "xit\n"]);
    ends[1]?.done();
    await settled();
    type("a");
    expect(sent).toEqual(["e", "xit\n", "a"]);
  });

  it("goes on after a call that failed", async () => {
    const { sent, ends, send } = slow();
    const tell = inTurn((_: string, next) => next, send);
    tell("80x24");
    tell("90x24");
    tell("100x24");
    ends[0]?.failed();
    await settled();
    expect(sent).toEqual(["80x24", "100x24"]);
  });
});
