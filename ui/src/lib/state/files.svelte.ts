/** What the Files tab shows of one container or volume: a folder, and the file that is open. */
import { quote } from "../command-line";
import type { Failure, FileRow, FilesOf, FilesView, Host, Job, Outside, Saved } from "../host";
import { say } from "../words/index.svelte";
import { failureOf } from "./failure";
import { some } from "./listing.svelte";
import type { About, Outcome, Tasks } from "./tasks.svelte";

/** How lines end. A text box knows one way only, so that a file of mixed ones would be changed by saving it. */
export type Endings = "lf" | "crlf" | "mixed";

export function endingsOf(text: string): Endings {
  const both = text.match(/\r\n/g)?.length ?? 0;
  const all = text.match(/\r\n|\r|\n/g)?.length ?? 0;
  if (both === 0 && !text.includes("\r")) return "lf";
  return both === all ? "crlf" : "mixed";
}

/** A path within a folder. */
export function within(folder: string, name: string): string {
  return `${folder.replace(/\/+$/, "")}/${name}`;
}

/** The folders on the way to a path, each with its name. */
export function crumbs(path: string): { name: string; path: string }[] {
  const names = path.split("/").filter(Boolean);
  return [{ name: "/", path: "/" }, ...names.map((name, index) => ({ name, path: `/${names.slice(0, index + 1).join("/")}` }))];
}

/** What something in a mount is, in words; empty where it is the container's own. */
export function outsideWords(outside: Outside | null, name: string | null): string {
  if (outside === null) return "";
  const words = { host: "onThisComputer", volume: "inVolume", machine: "inMachine" } as const;
  const place = outside.kind === "volume" || name === null ? outside.place : within(outside.place, name);
  return say(words[outside.kind], { place });
}

/** What is to be copied into a folder, where some of it is there already. */
export interface Replacing {
  folder: string;
  outside: Outside | null;
  paths: string[];
  names: string[];
}

/** Where a person chose no place, or has to be asked first. */
function didNothing(value: unknown): boolean {
  return value === null || (typeof value === "object" && "kind" in value && value.kind === "taken");
}

/** Writes a file anew, unless it changed since it was read at that revision; without one, whatever happened to it. */
export type Write = (path: string, text: string, revision: string | null) => Promise<Saved>;

/** What a path leads to, without the folders on the way. */
function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** The commands that do the same, by which a folder becomes a tar archive as well: in a container, or in one that only mounts the volume. */
function commands(of: FilesOf, name: string) {
  if (of.kind === "container") {
    return {
      remove: (path: string) => `docker exec ${quote(name)} rm -r ${quote(path)}`,
      download: (path: string, folder: boolean) =>
        `docker cp ${quote(`${name}:${path}`)} ${folder ? `- > ${quote(`${nameOf(path)}.tar`)}` : "."}`,
      upload: (path: string, folder: string) => `docker cp ${quote(path)} ${quote(`${name}:${folder}`)}`,
    };
  }
  const inside = (path: string) => quote(`/volume${path}`);
  return {
    remove: (path: string) => `docker run --rm --volume ${quote(`${name}:/volume`)} alpine rm -r ${inside(path)}`,
    download: (path: string, folder: boolean) => {
      const run = `docker run --rm --volume ${quote(`${name}:/volume:ro`)}`;
      if (!folder) return `${run} --volume "$PWD":/out alpine cp -a ${inside(path)} /out`;
      const own = nameOf(path);
      return `${run} alpine tar -cf - -C ${inside(path.slice(0, -own.length))} ${quote(own)} > ${quote(`${own}.tar`)}`;
    },
    upload: (path: string, folder: string) => {
      const from = `/in/${nameOf(path)}`;
      return `docker run --rm --volume ${quote(`${name}:/volume`)} --volume ${quote(`${path}:${from}:ro`)} alpine cp -a ${quote(from)} ${inside(folder)}`;
    },
  };
}

/** A file that is open. */
export class OpenFile {
  readonly path: string;
  /** What is changed by saving it, where that is not the container's own. */
  readonly outside: Outside | null;
  readonly endings: Endings;
  /** As the text box has it: lines end by a line feed. */
  text = $state("");
  saving = $state(false);
  /** Somebody else wrote the file since it was read. */
  conflict = $state(false);
  failure = $state.raw<Failure | null>(null);
  #saved = $state("");
  readonly changed = $derived(this.text !== this.#saved);
  #revision: string;

  constructor(path: string, text: string, revision: string, outside: Outside | null = null) {
    this.path = path;
    this.outside = outside;
    this.endings = endingsOf(text);
    this.text = this.#saved = text.replace(/\r\n/g, "\n");
    this.#revision = revision;
  }

  /** Saves it; over what another wrote meanwhile only by `force`. */
  async save(write: Write, force = false): Promise<void> {
    if (this.saving || this.endings === "mixed") return;
    [this.saving, this.failure] = [true, null];
    const text = this.text;
    try {
      const whole = this.endings === "crlf" ? text.replace(/\n/g, "\r\n") : text;
      const saved = await write(this.path, whole, force ? null : this.#revision);
      this.conflict = saved.kind === "conflict";
      if (saved.kind === "done") [this.#saved, this.#revision] = [text, saved.revision];
    } catch (error) {
      this.failure = failureOf(error);
    } finally {
      this.saving = false;
    }
  }
}

export class Files {
  folder = $state.raw<Extract<FilesView, { kind: "folder" }> | null>(null);
  file = $state.raw<OpenFile | null>(null);
  busy = $state(false);
  failure = $state.raw<Failure | null>(null);
  /** How something that was begun here ended, if that is worth telling. */
  told = $state("");
  /** Whether a person sees this now. */
  watched = false;
  /** What is copied once a person says so: the question that they see, and those that came while they read it. */
  #questions = $state.raw<readonly Replacing[]>([]);
  readonly #host: Host;
  readonly #tasks: Tasks;
  readonly #of: FilesOf;
  #openings = 0;

  constructor(host: Host, tasks: Tasks, of: FilesOf) {
    this.#host = host;
    this.#tasks = tasks;
    this.#of = of;
  }

  /** What a person is asked now. */
  get replacing(): Replacing | null {
    return this.#questions[0] ?? null;
  }

  /** The command that copies something of the folder to this computer. */
  copyFrom(row: FileRow, name: string): string {
    return commands(this.#of, name).download(within(this.path, row.name), row.kind === "folder");
  }

  /** The command that deletes something of the folder. */
  deletion(row: FileRow, name: string): string {
    return commands(this.#of, name).remove(within(this.path, row.name));
  }

  readonly write: Write = (path, text, revision) => this.#host.writeFile(this.#of, path, text, revision);

  get path(): string {
    return this.folder?.path ?? "/";
  }

  /** Shows a folder, or opens a file. What answers when a person has opened something else meanwhile, is dropped. */
  open(path: string): Promise<void> {
    const file = this.file;
    const opening = ++this.#openings;
    return this.#attempt(async () => {
      const found = await this.#host.filesAt(this.#of, path);
      if (opening !== this.#openings || file !== this.file) return;
      if (found.kind === "folder") {
        [this.folder, this.file] = [found, null];
        return;
      }
      const { text, revision } = await this.#host.readFile(this.#of, found.path);
      if (opening !== this.#openings || file !== this.file) return;
      this.file = new OpenFile(found.path, text, revision, found.outside);
    });
  }

  openRow(row: FileRow): Promise<void> {
    return this.open(within(this.path, row.name));
  }

  /** Closes the file and shows the folder as it is now. */
  close(): Promise<void> {
    this.file = null;
    return this.open(this.path);
  }

  makeFolder(name: string): Promise<void> {
    return this.#change(() => this.#host.makeFolder(this.#of, this.path, name));
  }

  rename(row: FileRow, name: string): Promise<void> {
    return this.#change(() => this.#host.renameFile(this.#of, within(this.path, row.name), name));
  }

  async remove(row: FileRow, name: string): Promise<void> {
    const path = within(this.path, row.name);
    const about = { title: say("deleteOf", { path, name }), command: this.deletion(row, name) };
    await this.#task(about, (job) => this.#host.removeFile(this.#of, path, job));
  }

  async download(row: FileRow, name: string): Promise<void> {
    const path = within(this.path, row.name);
    const about = { title: say("downloadOf", { path, name }), command: this.copyFrom(row, name) };
    const ended = await this.#task(about, (job) => this.#host.downloadFile(this.#of, path, row.kind === "folder", job));
    if (ended.kind === "done" && ended.value !== null) this.told = say("savedTo", { place: ended.value });
  }

  async choose(name: string): Promise<void> {
    let paths: string[] = [];
    await this.#attempt(async () => {
      paths = await this.#host.chooseFiles();
    });
    if (paths.length > 0) await this.take(paths, name);
  }

  /** Copies into the folder that is shown. What would be written over is asked about first. */
  take(paths: string[], name: string): Promise<void> {
    return this.#send({ folder: this.path, outside: this.folder?.outside ?? null, paths, names: [] }, name);
  }

  /** What a person said of what they were asked. */
  async replace(wanted: Replacing, yes: boolean, name: string): Promise<void> {
    if (!this.#questions.includes(wanted)) return;
    this.#questions = this.#questions.filter((other) => other !== wanted);
    if (yes) await this.#send(wanted, name);
  }

  async #send(wanted: Replacing, name: string): Promise<void> {
    const { folder, paths, names } = wanted;
    const what = some(paths.map((path) => path.split("/").pop() ?? path));
    const { upload } = commands(this.#of, name);
    const command = paths.map((path) => upload(path, folder)).join("\n");
    const about = { title: say("uploadOf", { what, path: folder, name }), command };
    const ended = await this.#task(about, (job) => this.#host.sendFiles(this.#of, folder, paths, names, job));
    if (ended.kind !== "done") return;
    // What was agreed to stays so; more may have come meanwhile.
    if (ended.value.kind === "taken") this.#questions = [...this.#questions, { ...wanted, names: [...names, ...ended.value.names] }];
    else if (ended.value.leftOut > 0) {
      const { leftOut, leftOutNames } = ended.value;
      const names = leftOutNames.join(", ") + (leftOut > leftOutNames.length ? ` + ${leftOut - leftOutNames.length}` : "");
      this.told = say("leftOut", { names });
    }
  }

  /** Something long, and then the folder as it is now, unless a person is on the way to another. */
  async #task<T>(about: About, work: (job: Job) => Promise<T>): Promise<Outcome<T>> {
    [this.told, this.failure] = ["", null];
    const { task, ended } = this.#tasks.begin(about, work);
    const outcome = await ended;
    if (outcome.kind === "done" && didNothing(outcome.value)) this.#tasks.forget(task);
    else if (this.file === null && !this.busy) await this.open(this.path);
    // What is told here needs no toast.
    if (this.watched) task.seen = true;
    if (outcome.kind === "failed") this.failure = outcome.failure;
    return outcome;
  }

  /** A change, and then the folder as it is now, whether that worked or not. */
  async #change(what: () => Promise<unknown>): Promise<void> {
    await this.#attempt(async () => {
      await what();
    });
    const failure = this.failure;
    await this.open(this.path);
    this.failure ??= failure;
  }

  async #attempt(what: () => Promise<void>): Promise<void> {
    [this.busy, this.failure] = [true, null];
    try {
      await what();
    } catch (error) {
      this.failure = failureOf(error);
    } finally {
      this.busy = false;
    }
  }
}
