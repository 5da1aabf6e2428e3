/**
 * The one door to everything outside the window. Screens get a `Host` and know nothing else; what it offers is what the
 * daemon's control API and the engine's API can really give.
 */
import type {
  ContainerRow,
  Dropped,
  Failure,
  FailureKind,
  FilesOf,
  FilesView,
  FileText,
  LogLine,
  MountRow,
  PortObstacle,
  ProcessTable,
  Publish,
  Removal,
  RunSpec,
  Saved,
  TaskStep,
  Upload,
  Usage,
} from "./types.gen";
import type { MachinesHost } from "./machines";
import type { ProjectsHost } from "./projects";
import type { ThingsHost } from "./things";

export type * from "./types.gen";

/** Ends a subscription. Calling it twice is harmless. */
export type Stop = () => void;

export type ContainerAction = "start" | "stop" | "restart" | "pause" | "unpause" | "kill" | "remove";

export type MachineLogSource = "engine" | "console" | "agent" | "daemon" | "machine" | "containerd" | "kernel";

/** What a person reads when something did not work. */
export class HostError extends Error {
  constructor(
    message: string,
    /** What to do next; empty when there is nothing sensible to say. */
    readonly hint = "",
    /** The registry to sign in to, where that may help. */
    readonly registry: string | null = null,
    /** What kind of failure it is, where the host knows. */
    readonly kind: FailureKind | null = null,
  ) {
    super(message);
    this.name = "HostError";
  }
}

export interface TerminalSize {
  columns: number;
  rows: number;
}

/** Shows what a terminal writes. */
export type TerminalSeen = (bytes: Uint8Array) => Promise<void>;

/** A shell in a container, beside one, or in the machine. */
export interface TerminalLink {
  type(text: string): void;
  resize(size: TerminalSize): void;
  /** Lets go of the terminal. Calling it twice is harmless. */
  close(): void;
}

/** Something dragged from elsewhere: over the window, off it again, or let go. */
export type Drag = { kind: "over" } | { kind: "off" } | { kind: "dropped"; paths: string[] };

/** A long action, as the host sees it: where it tells its steps, and how it learns that it is to end. */
export interface Job {
  readonly signal: AbortSignal;
  tell(step: TaskStep): void;
}

/** A machine to be made. What is null comes from the settings. */
export interface NewMachine {
  name: string;
  cpus: number | null;
  memoryMib: number | null;
  diskGib: number | null;
}

/** Something that was chosen outside of the window, such as in the tray, and did not work. */
export interface Missed {
  /** What was chosen, in the session's language. */
  title: string;
  failure: Failure;
}

export interface Host extends MachinesHost, ProjectsHost, ThingsHost {
  /** All containers at once, then again after each event of the engine. Nothing comes while no engine answers. */
  watchContainers(seen: (rows: ContainerRow[]) => void): Stop;
  /** Why the engine of the machine that runs does not answer, at once and whenever that changes; null while it does. */
  watchEngine(seen: (why: Failure | null) => void): Stop;
  /** What running containers use, by id, about once a second: the newest of them, where there are many, or `of` one alone. */
  watchUsage(seen: (usage: ReadonlyMap<string, Usage>) => void, of?: string): Stop;
  act(action: ContainerAction, id: string): Promise<void>;
  inspect(id: string): Promise<unknown>;
  mounts(id: string): Promise<MountRow[]>;
  processes(id: string): Promise<ProcessTable>;
  /** The log from its beginning in batches, then what comes. */
  followLog(id: string, seen: (lines: LogLine[]) => void): Stop;
  /** Asks where to write a text that is shown, such as a log, under a proposed name; where that is, null if nothing was said. */
  saveText(name: string, text: string): Promise<string | null>;
  /**
   * A shell in a running container. The next output comes when `seen` has dealt with the last; at the end it is told
   * whether there was a shell at all, which not every image has.
   */
  openTerminal(id: string, size: TerminalSize, seen: TerminalSeen, ended: (began: boolean) => void): Promise<TerminalLink>;
  /** The same with a shell in a container of its own beside that one, whose processes and network it sees. It goes with the terminal. */
  openDebugShell(id: string, size: TerminalSize, seen: TerminalSeen, ended: (began: boolean) => void): Promise<TerminalLink>;
  /** Creates and starts a container and returns its id; pulls its image where it is missing, and tells how far that is. */
  run(spec: RunSpec, job: Job): Promise<string>;
  /**
   * What would keep each of these ports of this computer from being published at this moment; null where nothing would.
   * Another program may take one right after.
   */
  portsFree(ports: Publish[]): Promise<(PortObstacle | null)[]>;
  /** Waits until a running container answers on a port that it has published. The port of this computer that leads there. */
  waitForPage(id: string, port: number, job: Job): Promise<number>;
  /** Opens the page of a port in the browser, which is published at this address of this computer, or at every one. */
  openPort(port: number, address: string | null): Promise<void>;

  /** What is chosen in the tray and does not work. What came before is not told. */
  watchTray(seen: (missed: Missed) => void): Stop;
  watchDrags(seen: (drag: Drag) => void): Stop;
  /** What was dropped. */
  lookAt(path: string): Promise<Dropped>;
  /** Lets containers mount a folder that was dropped or chosen. A person was asked before. */
  shareFolder(path: string, readOnly: boolean): Promise<void>;

  /** Somebody closes the window, where that would end the program. It waits for an answer, which is to come at once. */
  watchClosing(asked: () => void): Stop;
  /** Closes the window, or keeps it open and in view, where a person is asked first. */
  answerClosing(closes: boolean): Promise<void>;

  /** Whether the window's program is started when a person logs in; null where the desktop has no such thing. */
  autostart(): Promise<boolean | null>;
  setAutostart(on: boolean): Promise<void>;

  // Containers, more.
  /** What would be lost with each of them; those that are gone are left out. */
  removals(ids: string[]): Promise<Removal[]>;
  renameContainer(id: string, name: string): Promise<void>;
  /** Makes an image of what it holds, by that name. */
  commitContainer(id: string, reference: string, comment: string): Promise<void>;
  /** The `docker run` that makes another like it. */
  runLine(id: string): Promise<string>;

  // Files of a container or a volume, by absolute paths in it.
  filesAt(of: FilesOf, path: string): Promise<FilesView>;
  /** The text of a file of at most 1 MiB. */
  readFile(of: FilesOf, path: string): Promise<FileText>;
  /** Keeps mode and owner. Without a revision it writes whatever happened to the file since it was read. */
  writeFile(of: FilesOf, path: string, text: string, revision: string | null): Promise<Saved>;
  makeFolder(of: FilesOf, path: string, name: string): Promise<void>;
  /** Of a container only while it runs, as is removing. */
  renameFile(of: FilesOf, path: string, name: string): Promise<void>;
  /** A folder goes with what is in it. */
  removeFile(of: FilesOf, path: string, job: Job): Promise<void>;
  /** Asks where to; a folder becomes a tar archive. The place, or null if a person chose none. */
  downloadFile(of: FilesOf, path: string, folder: boolean, job: Job): Promise<string | null>;
  /** Asks for files of this computer; none if a person chose none. */
  chooseFiles(): Promise<string[]>;
  /** Copies what was chosen or dropped into a folder, if there is nothing of the same names but what may be replaced. */
  sendFiles(of: FilesOf, folder: string, paths: string[], replace: string[], job: Job): Promise<Upload>;
}
