/**
 * The one door to everything outside the window. Screens get a `Host` and know nothing else; what it offers is what the
 * daemon's control API and the engine's API can really give.
 */
import type {
  CheckView,
  ContainerRow,
  ImageRow,
  MachineView,
  NetworkRow,
  RunSpec,
  Usage,
  VolumeRow,
} from "./types.gen";

export type * from "./types.gen";

/** Ends a subscription. Calling it twice is harmless. */
export type Stop = () => void;

export type ContainerAction = "start" | "stop" | "restart" | "pause" | "unpause" | "kill" | "remove";

export interface LogLine {
  /** When the engine received it. */
  readonly atMs: number;
  readonly stream: "stdout" | "stderr";
  readonly text: string;
}

/** What a person reads when something did not work. */
export class HostError extends Error {
  constructor(
    message: string,
    /** What to do next; empty when there is nothing sensible to say. */
    readonly hint = "",
  ) {
    super(message);
    this.name = "HostError";
  }
}

export interface Host {
  /** The machine at once, then again whenever something about it changes. */
  watchMachine(seen: (machine: MachineView) => void): Stop;
  startMachine(): Promise<void>;
  stopMachine(): Promise<void>;
  checks(): Promise<CheckView[]>;

  /** All containers at once, then again after each event of the engine. Nothing comes while no engine answers. */
  watchContainers(seen: (rows: ContainerRow[]) => void): Stop;
  /** What each running container uses, by id, about once a second. */
  watchUsage(seen: (usage: ReadonlyMap<string, Usage>) => void): Stop;
  act(action: ContainerAction, id: string): Promise<void>;
  inspect(id: string): Promise<unknown>;
  /** The log from its beginning in batches, then what comes. */
  followLog(id: string, seen: (lines: LogLine[]) => void): Stop;
  /** Creates and starts a container and returns its id. */
  run(spec: RunSpec): Promise<string>;

  images(): Promise<ImageRow[]>;
  volumes(): Promise<VolumeRow[]>;
  networks(): Promise<NetworkRow[]>;
}
