/** Compose projects, and what is done to them: each a task, with the command that it stands for. */
import { composeCommand } from "../command-line";
import type { ComposeAction, ContainerRow, Failure, Host, ProjectRow } from "../host";
import { say } from "../words/index.svelte";
import { failureOf } from "./failure";
import { OpenFile } from "./files.svelte";
import { Listing } from "./listing.svelte";
import type { Tasks } from "./tasks.svelte";

const TITLES = { up: "upOf", stop: "stopOf", restart: "restartOf", down: "downOf" } as const;

export function containersOf(row: ProjectRow): ContainerRow[] {
  return row.services.flatMap((service) => service.containers);
}

/** How many of a project's services have a container that runs. */
export function running(row: ProjectRow): number {
  return row.services.filter((service) => service.containers.some((one) => one.state === "running")).length;
}

export class Projects {
  readonly list: Listing<ProjectRow>;
  /** Files that are open, by project and path. What is typed there stays while a person looks elsewhere. */
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- nobody looks at it but by key
  readonly #files = new Map<string, OpenFile>();

  constructor(
    readonly host: Host,
    readonly tasks: Tasks,
  ) {
    this.list = new Listing<ProjectRow>(host, {
      read: () => host.projects(),
      key: (row) => row.name,
      text: (row) => `${row.name} ${row.folder ?? ""} ${row.services.map((service) => service.name).join(" ")}`,
      kinds: ["container"],
    });
  }

  async act(action: ComposeAction, row: ProjectRow): Promise<void> {
    this.list.busy.add(row.name);
    const about = { title: say(TITLES[action], { name: row.name }), command: composeCommand(row, action) };
    await this.tasks.begin(about, (job) => this.host.compose(row.name, action, job)).ended;
    this.list.busy.delete(row.name);
    await this.list.refresh();
  }

  /** Opens the project of a folder and returns its name. */
  async open(folder: string): Promise<string> {
    const name = await this.host.openProject(folder);
    await this.list.refresh();
    return name;
  }

  /** Files with changes that nobody has saved. */
  unsaved(): string[] {
    return [...this.#files.values()].filter((file) => file.changed).map((file) => file.path);
  }

  /** A file of a project; read anew unless it was changed here. */
  async file(project: string, file: string, anew = false): Promise<OpenFile | Failure> {
    const key = `${project}\n${file}`;
    const known = this.#files.get(key);
    if (known?.changed && !anew) return known;
    try {
      const { text, revision } = await this.host.readProjectFile(project, file);
      const open = new OpenFile(file, text, revision);
      this.#files.set(key, open);
      return open;
    } catch (error) {
      return failureOf(error);
    }
  }
}
