/** What the Files tab shows of one container: a folder, and the file that is open. */
import type { Failure, FileRow, FilesView, Host } from "../host";
import { failureOf } from "./failure";

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

/** A file that is open. */
export class OpenFile {
  readonly path: string;
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

  constructor(path: string, text: string, revision: string) {
    this.path = path;
    this.endings = endingsOf(text);
    this.text = this.#saved = text.replace(/\r\n/g, "\n");
    this.#revision = revision;
  }

  /** Saves it; over what another wrote meanwhile only by `force`. */
  async save(host: Host, id: string, force = false): Promise<void> {
    if (this.saving || this.endings === "mixed") return;
    [this.saving, this.failure] = [true, null];
    const text = this.text;
    try {
      const whole = this.endings === "crlf" ? text.replace(/\n/g, "\r\n") : text;
      const saved = await host.writeFile(id, this.path, whole, force ? null : this.#revision);
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
  readonly #host: Host;
  readonly #id: string;
  #openings = 0;

  constructor(host: Host, id: string) {
    this.#host = host;
    this.#id = id;
  }

  get path(): string {
    return this.folder?.path ?? "/";
  }

  /** Shows a folder, or opens a file. What answers when a person has opened something else meanwhile, is dropped. */
  open(path: string): Promise<void> {
    const file = this.file;
    const opening = ++this.#openings;
    return this.#attempt(async () => {
      const found = await this.#host.filesAt(this.#id, path);
      if (opening !== this.#openings || file !== this.file) return;
      if (found.kind === "folder") {
        [this.folder, this.file] = [found, null];
        return;
      }
      const { text, revision } = await this.#host.readFile(this.#id, found.path);
      if (opening !== this.#openings || file !== this.file) return;
      this.file = new OpenFile(found.path, text, revision);
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
    return this.#change(() => this.#host.makeFolder(this.#id, this.path, name));
  }

  rename(row: FileRow, name: string): Promise<void> {
    return this.#change(() => this.#host.renameFile(this.#id, within(this.path, row.name), name));
  }

  remove(row: FileRow): Promise<void> {
    return this.#change(() => this.#host.removeFile(this.#id, within(this.path, row.name)));
  }

  /** Where it was saved, or null. */
  async download(row: FileRow): Promise<string | null> {
    let place: string | null = null;
    await this.#attempt(async () => {
      place = await this.#host.downloadFile(this.#id, within(this.path, row.name), row.kind === "folder");
    });
    return place;
  }

  choose(): Promise<void> {
    return this.#change(() => this.#host.sendChosen(this.#id, this.path));
  }

  take(paths: string[]): Promise<void> {
    return this.#change(() => this.#host.sendDropped(this.#id, this.path, paths));
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
