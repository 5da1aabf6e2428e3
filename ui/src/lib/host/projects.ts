/** What a host offers of a person's own folders: builds from them, and compose projects in them. */
import type { Job, Stop } from "./host";
import type {
  BuildDetails,
  BuildHistory,
  BuildSpec,
  ComposeAction,
  Dropped,
  FileText,
  LogLine,
  ProjectRow,
  Saved,
} from "./types.gen";

export interface ProjectsHost {
  /** Asks for a folder; null where the person chose none. */
  chooseFolder(): Promise<Dropped | null>;

  /** Builds from a folder that was dropped or chosen, or that the history names; it is kept there under `id`, a UUID. */
  buildImage(id: string, spec: BuildSpec, job: Job): Promise<void>;
  /** The builds that have ended, the newest first. */
  builds(): Promise<BuildHistory>;
  buildDetails(id: string): Promise<BuildDetails>;
  /** Lets go of builds in the history; images stay. */
  forgetBuilds(ids: string[]): Promise<void>;

  /** Projects that have containers, and those that were opened since the window was. */
  projects(): Promise<ProjectRow[]>;
  /** Opens the project in a folder that was dropped or chosen; its name. */
  openProject(folder: string): Promise<string>;
  compose(name: string, action: ComposeAction, job: Job): Promise<void>;
  /** The last lines of each container's log in batches, then what comes. */
  followProjectLog(name: string, seen: (lines: LogLine[]) => void): Stop;
  readProjectFile(name: string, file: string): Promise<FileText>;
  /** Refused unless compose finds the project valid. Without a revision it writes whatever happened to the file. */
  writeProjectFile(name: string, file: string, text: string, revision: string | null): Promise<Saved>;
}
