import type { Host } from "./host";
import { MemoryHost } from "./memory";

/** The host that this page runs on. `?containers=1000&lines=100000` sets the size of the one in memory. */
export function connect(): Host {
  const wanted = new URLSearchParams(location.search);
  const number = (name: string, otherwise: number) => {
    const value = Number(wanted.get(name) ?? otherwise);
    return Number.isInteger(value) && value >= 0 ? value : otherwise;
  };
  return new MemoryHost({
    containers: number("containers", 14),
    lines: number("lines", 400),
    running: wanted.get("machine") !== "stopped",
  });
}

export * from "./host";
