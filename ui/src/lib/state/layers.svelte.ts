/**
 * The files in the layers of one image.
 *
 *   (nothing) ──read──▶ layers, the newest first ──choose──▶ rows of one: the largest of all, or what is in a folder
 */
import { quote } from "../command-line";
import type { Failure, Host, LayerRows, LayerView } from "../host";
import { say } from "../words/index.svelte";
import { failureOf } from "./failure";
import type { Task, Tasks } from "./tasks.svelte";

export class Layers {
  /** The newest first, as in the list of an image's steps; null until they were read. */
  layers = $state.raw<readonly LayerView[] | null>(null);
  /** The reading that is under way. */
  task = $state.raw<Task | null>(null);
  /** The number of the layer that is shown, counted from the lowest. */
  chosen = $state<number | null>(null);
  /** The folder that is shown; null for the largest files wherever they are. */
  folder = $state<string | null>(null);
  search = $state("");
  rows = $state.raw<LayerRows | null>(null);
  failure = $state.raw<Failure | null>(null);
  readonly #host: Host;
  readonly #tasks: Tasks;
  readonly #id: string;
  #showings = 0;

  constructor(host: Host, tasks: Tasks, id: string) {
    this.#host = host;
    this.#tasks = tasks;
    this.#id = id;
  }

  /** The number of a layer in the list, counted from the lowest. */
  number(index: number): number {
    return (this.layers?.length ?? 0) - 1 - index;
  }

  /** The layer that is shown. */
  get shown(): LayerView | null {
    const { layers, chosen } = this;
    return layers === null || chosen === null ? null : (layers[layers.length - 1 - chosen] ?? null);
  }

  /** Has the engine send the image, and shows its largest layer. */
  async read(name: string): Promise<void> {
    if (this.task !== null) return;
    this.failure = null;
    const command = `docker save ${quote(name)} | tar --list`;
    const { task, ended } = this.#tasks.begin({ title: say("layersOf", { name }), command }, (job) => this.#host.readLayers(this.#id, job));
    this.task = task;
    const outcome = await ended;
    this.task = null;
    // It is seen here.
    task.seen = true;
    if (outcome.kind === "failed") this.failure = outcome.failure;
    if (outcome.kind !== "done") return;
    this.layers = [...outcome.value].reverse();
    const sizes = outcome.value.map((layer) => layer.size);
    if (sizes.length > 0) await this.choose(sizes.indexOf(Math.max(...sizes)));
  }

  /** Shows a layer from the top. */
  choose(number: number): Promise<void> {
    if (this.folder !== null) this.folder = "/";
    this.chosen = number;
    return this.show();
  }

  open(folder: string | null): Promise<void> {
    this.folder = folder;
    return this.show();
  }

  /** Shows what is asked for now. What answers when a person has asked for something else meanwhile, is dropped. */
  async show(): Promise<void> {
    const { chosen, folder, search } = this;
    if (chosen === null) return;
    const showing = ++this.#showings;
    try {
      const rows = await this.#host.layerFiles(this.#id, chosen, folder, search);
      if (showing === this.#showings) [this.rows, this.failure] = [rows, null];
    } catch (error) {
      if (showing !== this.#showings) return;
      // The host keeps a few images only; so they are read anew.
      [this.rows, this.layers, this.failure] = [null, null, failureOf(error)];
    }
  }
}
