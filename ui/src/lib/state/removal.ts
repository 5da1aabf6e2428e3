/** What a person is told before containers are removed. */
import type { Removal } from "../host";

/** Names that are told one by one. */
const NAMED = 5;

export interface Loss {
  names: string;
  /** Names of those that run and would be killed. */
  running: string;
  /** Volumes without a name, as `container:/path`. */
  volumes: string[];
}

function list(removals: readonly Removal[]): string {
  const shown = removals.slice(0, NAMED).map(({ name }) => name).join(", ");
  return removals.length > NAMED ? `${shown} + ${removals.length - NAMED}` : shown;
}

export function lossOf(removals: readonly Removal[]): Loss {
  return {
    names: list(removals),
    running: list(removals.filter(({ running }) => running)),
    volumes: removals.flatMap(({ name, volumes }) => volumes.map((path) => `${name}:${path}`)),
  };
}
