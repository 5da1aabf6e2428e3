/**
 * Builds: those under way, which are tasks of this window, and those that have ended, which the host keeps. A build has
 * one name from its beginning on, so that what is shown of it stays where it is when it ends.
 */
import { SvelteMap } from "svelte/reactivity";
import { buildCommand } from "../command-line";
import type { BuildRow, BuildSpec, BuildStep, Host } from "../host";
import { say } from "../words/index.svelte";
import { Listing } from "./listing.svelte";
import type { Task, Tasks } from "./tasks.svelte";

export function nameOfBuild(spec: BuildSpec): string {
  return spec.tag || say("unnamedBuild", { folder: spec.folder.split("/").pop() ?? spec.folder });
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
  /** Builds under way, by their names. */
  readonly #live = new SvelteMap<string, { row: BuildRow; task: Task }>();

  constructor(
    readonly host: Host,
    readonly tasks: Tasks,
  ) {
    this.list = new Listing<BuildRow>(host, {
      read: async () => {
        const { builds, damaged } = await host.builds();
        this.damaged = damaged;
        const live = [...this.#live.values()].map(({ row }) => row).reverse();
        return [...live, ...builds.filter((row) => !this.#live.has(row.id))];
      },
      key: (row) => row.id,
      text: (row) => `${row.spec.tag} ${row.spec.folder} ${row.spec.target}`,
      kinds: [],
    });
  }

  /** The task of a build that is under way. */
  taskOf(id: string): Task | null {
    return this.#live.get(id)?.task ?? null;
  }

  /** Begins a build; its name, and its end. */
  begin(spec: BuildSpec): { id: string; ended: Promise<void> } {
    const id = crypto.randomUUID();
    const { task, ended } = this.tasks.begin({ title: say("buildOf", { name: nameOfBuild(spec) }), command: buildCommand(spec) }, (job) =>
      this.host.buildImage(id, spec, job),
    );
    const row: BuildRow = { id, spec, startedMs: Date.now(), tookMs: 0, outcome: "running", failure: "", steps: 0, cached: 0 };
    this.#live.set(id, { row, task });
    void this.list.refresh();
    const over = ended.then(async () => {
      if (this.watched === id) task.seen = true;
      this.#live.delete(id);
      await this.list.refresh();
    });
    return { id, ended: over };
  }

  async forget(rows: readonly BuildRow[]): Promise<void> {
    await this.host.forgetBuilds(rows.map((row) => row.id));
    await this.list.refresh();
  }
}
