/** Something that is done to several: a few at once, each of which says how it fares. */
import { type Failure, HostError, type Job } from "../host";
import { say } from "../words/index.svelte";
import { failureOf } from "./failure";

/** To so many something is done at once: the engine has other work, and what waits can still be left alone. */
const AT_ONCE = 4;

export interface Each<Row> {
  id: (row: Row) => string;
  name: (row: Row) => string;
  /** Says whether there was something to do. */
  act: (row: Row) => Promise<boolean>;
}

/** Goes on after one that failed. Cancelled, it begins with no other, and ends with what is under way. */
export async function doToEach<Row>(rows: readonly Row[], { id, name, act }: Each<Row>, job: Job): Promise<void> {
  const waiting = [...rows];
  const failures: Failure[] = [];
  let [ended, left] = [0, 0];
  const tell = (row: Row, note: string) => job.tell({ kind: "part", id: id(row), label: name(row), note, fraction: null });
  for (const row of waiting) tell(row, say("partWaiting"));
  job.signal.addEventListener("abort", () => {
    for (const row of waiting.splice(0)) {
      left += 1;
      tell(row, say("task_cancelled"));
    }
  });
  const work = async () => {
    for (let row = waiting.shift(); row !== undefined; row = waiting.shift()) {
      tell(row, say("partUnderWay"));
      try {
        tell(row, say((await act(row)) ? "task_done" : "partSkipped"));
      } catch (error) {
        const failure = failureOf(error);
        failures.push(failure);
        tell(row, `${say("task_failed")}: ${failure.message}`);
      }
      ended += 1;
      job.tell({ kind: "whole", message: "", fraction: ended / rows.length });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  if (left > 0) job.signal.throwIfAborted();
  const [first] = failures;
  if (first === undefined) return;
  const many = rows.length > 1 ? `${say("someFailed", { failed: failures.length, count: rows.length })} ` : "";
  throw new HostError(`${many}${first.message}`, first.hint, first.registry ?? null, first.kind ?? null);
}
