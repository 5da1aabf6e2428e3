/** Builds and compose projects of the desktop application. */
import type { Job, LogLine, Stop } from "./host";
import type { ProjectsHost } from "./projects";
import { call, longCall, watchBatches } from "./tauri-call";
import type { BuildDetails, BuildHistory, BuildSpec, ComposeAction, Dropped, FileText, ProjectRow, Saved } from "./types.gen";

export class TauriProjects implements ProjectsHost {
  chooseFolder(): Promise<Dropped | null> {
    return call("choose_folder");
  }

  buildImage(id: string, spec: BuildSpec, job: Job): Promise<void> {
    return longCall("build_image", { id, spec }, job);
  }

  builds(): Promise<BuildHistory> {
    return call("builds");
  }

  buildDetails(id: string): Promise<BuildDetails> {
    return call("build_details", { id });
  }

  forgetBuilds(ids: string[]): Promise<void> {
    return call("forget_builds", { ids });
  }

  projects(): Promise<ProjectRow[]> {
    return call("projects");
  }

  openProject(folder: string): Promise<string> {
    return call("open_project", { folder });
  }

  compose(name: string, action: ComposeAction, job: Job): Promise<void> {
    return longCall("compose", { name, action }, job);
  }

  followProjectLog(name: string, seen: (lines: LogLine[]) => void): Stop {
    return watchBatches("follow_project_log", { name }, seen);
  }

  readProjectFile(name: string, file: string): Promise<FileText> {
    return call("read_project_file", { name, file });
  }

  writeProjectFile(name: string, file: string, text: string, revision: string | null): Promise<Saved> {
    return call("write_project_file", { name, file, text, revision });
  }
}
