/** What is done to images: each long action a task, with the command that it stands for. */
import { quote } from "../command-line";
import { bytes } from "../format";
import type { Host, ImageRow } from "../host";
import { say } from "../words/index.svelte";
import { Layers } from "./layers.svelte";
import { Listing } from "./listing.svelte";
import { type About, engineGoesOn, type Tasks } from "./tasks.svelte";

export type ImageFilter = "all" | "unused" | "dangling";

export function nameOf(row: ImageRow): string {
  return row.tags[0] ?? row.id.replace("sha256:", "").slice(0, 12);
}

/** How a whole image is removed: by its digest where it has several names, all of which a person was told. */
export function removalOf(row: ImageRow): { reference: string; force: boolean } {
  const [only, ...others] = row.tags;
  const reference = only !== undefined && others.length === 0 ? only : row.id;
  return { reference, force: others.length > 0 || row.users.length > 0 };
}

/** The commands that remove images just so: only those are forced that have to be. */
export function removalCommand(rows: readonly ImageRow[]): string {
  const removals = rows.map(removalOf);
  const lines = [false, true].flatMap((forced) => {
    const names = removals.filter(({ force }) => force === forced).map(({ reference }) => quote(reference));
    return names.length === 0 ? [] : [`docker rmi ${forced ? "--force " : ""}${names.join(" ")}`];
  });
  return lines.join("\n");
}

export function pruneCommand(unused: boolean): string {
  return `docker image prune${unused ? " --all" : ""}`;
}

export function pushCommand(reference: string): string {
  return `docker push ${quote(reference)}`;
}

export function saveCommand(rows: readonly ImageRow[]): string {
  const file = `${nameOfAll(rows).replaceAll(/[/:]/g, "-")}.tar`;
  return `docker save --output ${quote(file)} ${referencesOf(rows).map(quote).join(" ")}`;
}

export function loadCommand(file: string | null): string {
  return `docker load --input ${quote(file ?? "FILE.tar")}`;
}

/** What each image is asked for by. */
function referencesOf(rows: readonly ImageRow[]): string[] {
  return rows.map((row) => row.tags[0] ?? row.id);
}

/** Whether the filter lets an image through. */
export function passes(row: ImageRow, filter: ImageFilter): boolean {
  return filter === "all" || (filter === "unused" ? row.users.length === 0 : row.tags.length === 0);
}

function about(word: "pullOf" | "pushOf" | "saveOf" | "loadOf" | "importOf", name: string, command: string): About {
  return { title: say(word, { name }), command };
}

export class Images {
  readonly list: Listing<ImageRow>;
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- nobody looks at it but by key
  readonly #layers = new Map<string, Layers>();
  #filter = $state<ImageFilter>("all");

  constructor(
    readonly host: Host,
    readonly tasks: Tasks,
  ) {
    this.list = new Listing<ImageRow>(host, {
      read: () => host.images(),
      key: (row) => row.id,
      text: (row) => `${row.tags.join(" ")} ${row.id}`,
      kinds: ["image", "container"],
    });
  }

  /** The files in an image's layers. They stay while a person looks elsewhere. */
  layersOf(id: string): Layers {
    const layers = this.#layers.get(id) ?? new Layers(this.host, this.tasks, id);
    this.#layers.set(id, layers);
    return layers;
  }

  get filter(): ImageFilter {
    return this.#filter;
  }

  set filter(filter: ImageFilter) {
    this.#filter = filter;
    this.list.filter = filter === "all" ? null : (row) => passes(row, filter);
  }

  pull(reference: string): void {
    this.tasks.begin(about("pullOf", reference, `docker pull ${quote(reference)}`), (job) => this.host.pullImage(reference, job));
  }

  push(reference: string): void {
    this.tasks.begin(about("pushOf", reference, pushCommand(reference)), (job) => this.host.pushImage(reference, job));
  }

  save(rows: readonly ImageRow[]): Promise<void> {
    return this.#chosen(about("saveOf", nameOfAll(rows), saveCommand(rows)), (job) => this.host.saveImages(referencesOf(rows), job));
  }

  load(dropped: string | null): Promise<void> {
    const file = dropped?.split("/").pop() ?? say("tarFile");
    return this.#chosen(about("loadOf", file, loadCommand(dropped)), (job) => this.host.loadImages(dropped, job));
  }

  import(reference: string): Promise<void> {
    return this.#chosen(about("importOf", reference, `docker import FILE.tar ${quote(reference)}`), (job) => this.host.importImage(reference, job));
  }

  remove(rows: readonly ImageRow[]): Promise<boolean> {
    const remove = (row: ImageRow) => {
      const { reference, force } = removalOf(row);
      return this.host.removeImage(reference, force);
    };
    const about = { title: say("removeOf", { name: nameOfAll(rows) }), command: removalCommand(rows) };
    return this.list.each(rows, remove, { tasks: this.tasks, about, name: nameOf });
  }

  /** Removes images without a name, or all that no container was made from, and says what that came to. */
  async prune(unused: boolean): Promise<void> {
    await this.tasks.begin({ title: say("pruneImages"), command: pruneCommand(unused), ...engineGoesOn() }, async (job) => {
      const { removed, bytes: freed } = await this.host.pruneImages(unused);
      job.tell({ kind: "line", text: say("pruned", { count: removed.length, size: bytes(freed) }) });
    }).ended;
  }

  /** Takes one of its names away, which can be given back. */
  async untag(row: ImageRow, name: string): Promise<void> {
    if (!(await this.list.each([row], () => this.host.removeImage(name, false)))) return;
    const back = { command: `docker tag ${quote(row.id)} ${quote(name)}`, work: () => this.host.tagImage(row.id, name) };
    this.tasks.done({ title: say("untag", { name }), command: `docker rmi ${quote(name)}`, back });
  }

  /** What a person chose no file for did not happen. */
  async #chosen(about: About, work: Parameters<Tasks["begin"]>[1]): Promise<void> {
    const { task, ended } = this.tasks.begin(about, work);
    const outcome = await ended;
    if (outcome.kind === "done" && (outcome.value === null || outcome.value === false)) this.tasks.forget(task);
  }
}

function nameOfAll(rows: readonly ImageRow[]): string {
  const [first] = rows;
  if (first === undefined) return "";
  return rows.length === 1 ? nameOf(first) : `${nameOf(first)} + ${rows.length - 1}`;
}
