/**
 * Builds: those that are tasks of this window, and those that have ended, which the host keeps. A build has one name from
 * its beginning on, so that what is shown of it stays where it is when it ends. One that the host does not have after its
 * end, because it refused to begin it or could not write the history, stays here until the window is closed.
 */
import { SvelteMap } from "svelte/reactivity";
import { buildCommand } from "../command-line";
import type { BuildRow, BuildSpec, BuildStep, Host, Sharing } from "../host";
import { say } from "../words/index.svelte";
import { Listing } from "./listing.svelte";
import type { Task, Tasks } from "./tasks.svelte";

/** Builds that have ended, that the host does not have, and that are kept here. */
const KEPT = 20;

export function nameOfBuild(spec: BuildSpec): string {
  return spec.tag || say("unnamedBuild", { folder: spec.folder.split("/").pop() ?? spec.folder });
}

/** What has become of a build, as far as its task tells. */
function rowNow(row: BuildRow, task: Task): BuildRow {
  const states = [...task.steps.values()].map((step) => step.state);
  const cached = states.filter((state) => state === "cached").length;
  const steps = cached + states.filter((state) => state === "done").length;
  return { ...row, tookMs: Date.now() - row.startedMs, outcome: task.state, failure: task.failure?.message ?? "", steps, cached };
}

export interface Stage {
  /** Null for what BuildKit does before and after the stages. */
  name: string | null;
  steps: BuildStep[];
  cached: number;
  /** Milliseconds of its steps together; they may have gone on at the same time. */
  tookMs: number;
}

/** Steps by stage, each stage where its first step is. */
export function stagesOf(steps: Iterable<BuildStep>): Stage[] {
  // eslint-disable-next-line svelte/prefer-svelte-reactivity -- it does not outlive this call
  const stages = new Map<string | null, Stage>();
  for (const step of steps) {
    const stage = stages.get(step.stage) ?? { name: step.stage, steps: [], cached: 0, tookMs: 0 };
    stage.steps.push(step);
    stage.cached += Number(step.state === "cached");
    stage.tookMs += step.tookMs ?? 0;
    stages.set(step.stage, stage);
  }
  return [...stages.values()];
}

export class Builds {
  readonly list: Listing<BuildRow>;
  /** Where a history was put that could not be read. */
  damaged = $state<string | null>(null);
  /** The build that a person looks at, whose end needs no toast. */
  watched: string | null = null;
  /** Builds of this window that the host does not have yet, by their names, the oldest first. */
  readonly #here = new SvelteMap<string, { row: BuildRow; task: Task }>();

  constructor(
    readonly host: Host,
    readonly tasks: Tasks,
  ) {
    this.list = new Listing<BuildRow>(host, {
      read: async () => {
        const { builds, damaged } = await host.builds();
        this.damaged = damaged;
        // Of a build that has ended, what is known here counts until the host knows its end as well.
        for (const { id, outcome } of builds) {
          if (outcome !== "running" && this.#here.get(id)?.row.outcome !== "running") this.#here.delete(id);
        }
        const here = [...this.#here.values()].map(({ row }) => row).reverse();
        return [...here, ...builds.filter((row) => !this.#here.has(row.id))];
      },
      key: (row) => row.id,
      text: (row) => `${row.spec.tag} ${row.spec.folder} ${row.spec.target}`,
      kinds: [],
    });
  }

  /** The task of a build that the host does not have: one under way, or one that did not get into the history. */
  taskOf(id: string): Task | null {
    return this.#here.get(id)?.task ?? null;
  }

  /** How a folder of the history is shared now: as the share says that is nearest above it. */
  async sharing(folder: string): Promise<Sharing> {
    const above = (await this.host.shares()).filter(({ path }) => `${folder}/`.startsWith(path.endsWith("/") ? path : `${path}/`));
    const nearest = above.sort((one, other) => other.path.length - one.path.length)[0];
    return nearest === undefined ? "no" : nearest.readOnly ? "read-only" : "read-write";
  }

  /** Begins a build; its name, and its end. */
  begin(spec: BuildSpec): { id: string; ended: Promise<void> } {
    const id = crypto.randomUUID();
    const { task, ended } = this.tasks.begin({ title: say("buildOf", { name: nameOfBuild(spec) }), command: buildCommand(spec) }, (job) =>
      this.host.buildImage(id, spec, job),
    );
    const row: BuildRow = { id, spec, startedMs: Date.now(), tookMs: 0, outcome: "running", failure: "", steps: 0, cached: 0 };
    this.#put(row, task);
    void this.list.refresh();
    const over = ended.then(async () => {
      this.#put(rowNow(row, task), task);
      // Who looks at it reads there how it ended.
      if (this.watched === id) task.seen = true;
      await this.list.refresh();
    });
    return { id, ended: over };
  }

  /** Shows a build as it is now, whether or not the host tells its own when the list is read next. */
  #put(row: BuildRow, task: Task): void {
    this.#here.set(row.id, { row, task });
    const over = [...this.#here.values()].filter(({ row }) => row.outcome !== "running");
    for (const { row } of over.slice(0, -KEPT)) this.#here.delete(row.id);
    const rows = this.list.rows ?? [];
    this.list.rows = rows.some(({ id }) => id === row.id) ? rows.map((other) => (other.id === row.id ? row : other)) : [row, ...rows];
  }

  async forget(rows: readonly BuildRow[]): Promise<void> {
    for (const { id } of rows) this.#here.delete(id);
    await this.host.forgetBuilds(rows.map((row) => row.id));
    await this.list.refresh();
  }
}
