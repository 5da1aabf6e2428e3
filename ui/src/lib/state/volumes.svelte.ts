/** What is done to volumes: each long action a task, with the command that it stands for. */
import { quote } from "../command-line";
import type { Host, Job, VolumeRow } from "../host";
import { say } from "../words/index.svelte";
import { Files } from "./files.svelte";
import { Listing, some } from "./listing.svelte";
import type { Tasks } from "./tasks.svelte";

/** What a name of a volume may be, by the engine's own rule. */
export const VOLUME_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/;

/** The command that the engine's archives stand for here: tar, in a container that mounts the volume. */
function tar(name: string, readOnly: boolean, words: string): string {
  return `docker run --rm --volume ${quote(name)}:/volume${readOnly ? ":ro" : ""} --volume "$PWD":/backup alpine tar ${words}`;
}

export function removalCommand(rows: readonly VolumeRow[]): string {
  return `docker volume rm ${rows.map(({ name }) => quote(name)).join(" ")}`;
}

export function backUpCommand(name: string): string {
  return tar(name, true, `-cf /backup/${quote(name)}.tar -C /volume .`);
}

export function restoreCommand(name: string): string {
  return tar(name, false, "-xf /backup/FILE.tar -C /volume");
}

export function cloneCommand(name: string, to: string): string {
  return `docker run --rm --volume ${quote(name)}:/from:ro --volume ${quote(to)}:/to alpine cp -a /from/. /to`;
}

export function emptyCommand(name: string): string {
  return `docker run --rm --volume ${quote(name)}:/volume alpine find /volume -mindepth 1 -delete`;
}

export class Volumes {
  readonly list: Listing<VolumeRow>;
  /** Bytes by name; null until the engine has counted them. */
  sizes = $state.raw<ReadonlyMap<string, number> | null>(null);
  #counting = false;
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- nobody looks at it but by key
  readonly #files = new Map<string, Files>();

  constructor(
    readonly host: Host,
    readonly tasks: Tasks,
  ) {
    this.list = new Listing<VolumeRow>(host, {
      read: () => host.volumes(),
      key: (row) => row.name,
      text: (row) => `${row.name} ${row.labels.map((label) => label.value).join(" ")}`,
      kinds: ["volume", "container"],
    });
  }

  size(row: VolumeRow): number | null {
    return this.sizes?.get(row.name) ?? row.size;
  }

  /** A volume's files. What is typed there stays while a person looks elsewhere. */
  filesOf(name: string): Files {
    const files = this.#files.get(name) ?? new Files(this.host, this.tasks, { kind: "volume", name });
    this.#files.set(name, files);
    return files;
  }

  /** Files that are open with changes that nobody has saved, each behind its volume's name. */
  unsaved(): string[] {
    return [...this.#files].flatMap(([name, { file }]) => (file?.changed ? [`${name}:${file.path}`] : []));
  }

  /** The engine walks through every volume for it; so one counting at a time, and beside the list. */
  async count(): Promise<void> {
    if (this.#counting) return;
    this.#counting = true;
    try {
      this.sizes = await this.host.volumeSizes();
    } catch {
      // The list says why the engine does not answer; sizes that are missing show as such.
      this.sizes = null;
    } finally {
      this.#counting = false;
    }
  }

  /** Whether a volume may be made by that name. */
  free(name: string): boolean {
    return VOLUME_NAME.test(name) && this.list.row(name) === undefined;
  }

  /** A name that is free, for a copy. */
  nameBeside(name: string): string {
    for (let count = 1; ; count += 1) {
      const proposed = `${name}-copy${count === 1 ? "" : `-${count}`}`;
      if (this.list.row(proposed) === undefined) return proposed;
    }
  }

  backUp(name: string): Promise<void> {
    return this.#chosen(say("backUpOf", { name }), backUpCommand(name), (job) => this.host.backUpVolume(name, job));
  }

  restore(name: string): Promise<void> {
    return this.#chosen(say("restoreOf", { name }), restoreCommand(name), (job) => this.host.restoreVolume(name, job));
  }

  clone(name: string, to: string): Promise<void> {
    return this.#begin(say("cloneOf", { name, to }), cloneCommand(name, to), (job) => this.host.cloneVolume(name, to, job));
  }

  empty(name: string): Promise<void> {
    return this.#begin(say("emptyOf", { name }), emptyCommand(name), (job) => this.host.emptyVolume(name, job));
  }

  remove(rows: readonly VolumeRow[]): Promise<boolean> {
    const names = rows.map(({ name }) => name);
    const about = { title: say("removeOf", { name: some(names) }), command: removalCommand(rows) };
    return this.list.each(rows, ({ name }) => this.host.removeVolume(name), { tasks: this.tasks, about, name: ({ name }) => name });
  }

  async #begin(title: string, command: string, work: (job: Job) => Promise<void>): Promise<void> {
    await this.tasks.begin({ title, command }, work).ended;
    await this.count();
  }

  /** What a person chose no file for did not happen. */
  async #chosen(title: string, command: string, work: (job: Job) => Promise<string | boolean | null>): Promise<void> {
    const { task, ended } = this.tasks.begin({ title, command }, work);
    const outcome = await ended;
    if (outcome.kind === "done" && (outcome.value === null || outcome.value === false)) this.tasks.forget(task);
    else await this.count();
  }
}
