/**
 * The one door to everything outside the window. Screens get a `Host` and know nothing else; what it offers is what the
 * daemon's control API and the engine's API can really give.
 */
import type {
  CheckView,
  ContainerRow,
  Dropped,
  ImageRow,
  LogLine,
  MachineNews,
  MountRow,
  NetworkRow,
  ProcessTable,
  RunSpec,
  Step,
  Usage,
  VolumeRow,
} from "./types.gen";

export type * from "./types.gen";

/** Ends a subscription. Calling it twice is harmless. */
export type Stop = () => void;

export type ContainerAction = "start" | "stop" | "restart" | "pause" | "unpause" | "kill" | "remove";

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

export interface TerminalSize {
  columns: number;
  rows: number;
}

/** A shell in a container. */
export interface TerminalLink {
  type(text: string): void;
  resize(size: TerminalSize): void;
  /** Lets go of the terminal. Calling it twice is harmless. */
  close(): void;
}

/** Something dragged from elsewhere: over the window, off it again, or let go. */
export type Drag = { kind: "over" } | { kind: "off" } | { kind: "dropped"; paths: string[] };

export interface Host {
  /** What the machine does at once, then again whenever something about it changes. */
  watchMachine(seen: (news: MachineNews) => void): Stop;
  /** Starts machine and daemon, and tells each stage. */
  startMachine(step: (step: Step) => void): Promise<void>;
  stopMachine(): Promise<void>;
  checks(): Promise<CheckView[]>;

  /** All containers at once, then again after each event of the engine. Nothing comes while no engine answers. */
  watchContainers(seen: (rows: ContainerRow[]) => void): Stop;
  /** What running containers use, by id, about once a second. */
  watchUsage(seen: (usage: ReadonlyMap<string, Usage>) => void): Stop;
  act(action: ContainerAction, id: string): Promise<void>;
  inspect(id: string): Promise<unknown>;
  mounts(id: string): Promise<MountRow[]>;
  processes(id: string): Promise<ProcessTable>;
  /** The log from its beginning in batches, then what comes. */
  followLog(id: string, seen: (lines: LogLine[]) => void): Stop;
  /** A shell in a running container. The next output comes when `seen` has dealt with the last. */
  openTerminal(id: string, size: TerminalSize, seen: (bytes: Uint8Array) => Promise<void>, ended: () => void): Promise<TerminalLink>;
  /** Creates and starts a container and returns its id; pulls its image where it is missing, and tells how far that is. */
  run(spec: RunSpec, step: (step: Step) => void): Promise<string>;
  /** Opens the page of a published port in the browser. */
  openPort(port: number): Promise<void>;

  images(): Promise<ImageRow[]>;
  volumes(): Promise<VolumeRow[]>;
  networks(): Promise<NetworkRow[]>;

  watchDrags(seen: (drag: Drag) => void): Stop;
  lookAt(path: string): Promise<Dropped>;
  /** Lets containers mount a folder. A person was asked before. */
  shareFolder(path: string, readOnly: boolean): Promise<void>;
}
