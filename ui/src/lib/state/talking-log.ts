/** A log that says what a test has it say. */
import type { LogLine, LogStream } from "../host";
import { Log } from "./logs.svelte";

export function talkingLog(): { log: Log; say: (texts: string[], stream?: LogStream) => void } {
  let hear: (lines: LogLine[]) => void = () => undefined;
  const log = new Log();
  const followLog = (_id: string, seen: (lines: LogLine[]) => void) => {
    hear = seen;
    return () => undefined;
  };
  log.follow({ followLog }, "x");
  return { log, say: (texts, stream = "stdout") => hear(texts.map((text) => ({ atMs: 0, stream, text }))) };
}

/** Lines by their numbers. */
export function numbered(from: number, to: number): string[] {
  return Array.from({ length: to - from }, (_, index) => `line ${from + index}`);
}
