import type { Failure } from "../host";

/** What a person reads of whatever was thrown. */
export function failureOf(error: unknown): Failure {
  if (error instanceof Error) {
    const failure = { message: error.message, hint: "hint" in error ? String(error.hint) : "" };
    return "registry" in error && typeof error.registry === "string" ? { ...failure, registry: error.registry } : failure;
  }
  return { message: String(error), hint: "" };
}
