/** Commands and channels of `src-tauri`, whatever they are about. */
import { Channel, invoke } from "@tauri-apps/api/core";
import { type FailureKind, HostError, type Job, type LogLine, type Stop, type TaskStep } from "./host";

export async function call<T>(command: string, values: Record<string, unknown> = {}): Promise<T> {
  try {
    return await invoke<T>(command, values);
  } catch (error) {
    throw refusal(error);
  }
}

/** Commands refuse with a `Failure`; what the shell itself refuses is a text. */
function refusal(error: unknown): HostError {
  if (typeof error === "object" && error !== null && "message" in error) {
    const registry = "registry" in error && typeof error.registry === "string" ? error.registry : null;
    const kind = "kind" in error && typeof error.kind === "string" ? (error.kind as FailureKind) : null;
    return new HostError(String(error.message), "hint" in error ? String(error.hint) : "", registry, kind);
  }
  return new HostError(String(error));
}

/** A call whose failure is told by what the window shows next. */
export async function send(command: string, values: Record<string, unknown>): Promise<void> {
  await call(command, values).catch((error: unknown) => console.warn(command, error));
}

/** Numbers of tasks, which are the page's. */
let tasks = 0;

/** A command that takes long. It can be cancelled once its first message is there; before, there is nothing to cancel. */
export async function longCall<T>(command: string, values: Record<string, unknown>, job: Job): Promise<T> {
  tasks += 1;
  const task = tasks;
  let begun: () => void = () => undefined;
  const begins = new Promise<void>((done) => (begun = done));
  const steps = new Channel<TaskStep[]>((told) => {
    begun();
    for (const step of told) job.tell(step);
  });
  const cancel = () => void begins.then(() => send("cancel_task", { task }));
  if (job.signal.aborted) cancel();
  job.signal.addEventListener("abort", cancel, { once: true });
  try {
    return await call<T>(command, { ...values, task, steps });
  } finally {
    job.signal.removeEventListener("abort", cancel);
  }
}

/** Starts a stream; `seen` gets each message and the stream's number, once that is known. */
export function watch<T>(command: string, values: Record<string, unknown>, seen: (message: T, number: Promise<number>) => void): Stop {
  let wanted = true;
  const channel = new Channel<T>((message) => {
    if (wanted) seen(message, number);
  });
  const number = call<number>(command, { ...values, seen: channel });
  number.catch((error: unknown) => console.warn(command, error));
  return () => {
    if (!wanted) return;
    wanted = false;
    void number.then((number) => send("unwatch", { number }), () => undefined);
  };
}

/** A log in batches, each of which is acknowledged, so that the next ones come. */
export function watchBatches(command: string, values: Record<string, unknown>, seen: (lines: LogLine[]) => void): Stop {
  return watch<LogLine[]>(command, values, (lines, number) => {
    seen(lines);
    void number.then((number) => send("taken", { number, amount: 1 }), () => undefined);
  });
}
