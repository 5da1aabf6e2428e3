import { isTauri } from "@tauri-apps/api/core";
import type { Host } from "./host";

/**
 * The host that this page runs on: the desktop application's, or in a browser the one in memory, whose size
 * `?containers=1000&lines=100000` sets. Each is loaded only where it is used.
 */
export async function connect(): Promise<Host> {
  if (isTauri()) return new (await import("./tauri")).TauriHost();
  const { MemoryHost } = await import("./memory");
  const wanted = new URLSearchParams(location.search);
  const number = (name: string, otherwise: number) => {
    const value = Number(wanted.get(name) ?? otherwise);
    return Number.isInteger(value) && value >= 0 ? value : otherwise;
  };
  return new MemoryHost({
    containers: number("containers", 14),
    lines: number("lines", 400),
    machine: wanted.get("machine") ?? "running",
  });
}

export * from "./host";
