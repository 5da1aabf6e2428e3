import type { Failure, FailureKind } from "../host";
import { say, type Word } from "../words/index.svelte";

const HEADS: Record<FailureKind, Word> = {
  daemon_away: "failureDaemon",
  engine_away: "engineLost",
  engine_refused: "failureRefused",
  registry: "failureRegistry",
  invalid: "failureInvalid",
  not_found: "failureNotFound",
  conflict: "failureConflict",
  wrong_state: "failureWrongState",
  not_confirmed: "failureNotConfirmed",
  bad_image: "failureBadImage",
  missing_dependency: "failureMissingDependency",
  disk_full: "failureDiskFull",
  machine_failed: "failureMachine",
  timeout: "failureTimeout",
  unsupported: "failureUnsupported",
  internal: "failureInternal",
};

/** What a person reads of whatever was thrown. */
export function failureOf(error: unknown): Failure {
  if (!(error instanceof Error)) return { message: String(error), hint: "" };
  const failure: Failure = { message: error.message, hint: "hint" in error ? String(error.hint) : "" };
  if ("registry" in error && typeof error.registry === "string") failure.registry = error.registry;
  if ("kind" in error && isKind(error.kind)) failure.kind = error.kind;
  return failure;
}

/** What kind of failure it is, in the window's language; empty where that is not known. */
export function headOf(failure: Failure): string {
  return failure.kind === undefined ? "" : say(HEADS[failure.kind]);
}

/** Whether there are words for it. */
export function isKind(kind: unknown): kind is FailureKind {
  return typeof kind === "string" && Object.hasOwn(HEADS, kind);
}
