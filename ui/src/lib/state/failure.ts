import type { Failure } from "../host";

/** What a person reads of whatever was thrown. */
export function failureOf(error: unknown): Failure {
  if (error instanceof Error) return { message: error.message, hint: "hint" in error ? String(error.hint) : "" };
  return { message: String(error), hint: "" };
}
