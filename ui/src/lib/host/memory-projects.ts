/**
 * Builds and compose projects of the host in memory. Projects follow from the containers, as by compose's labels; a build
 * takes the steps of one Dockerfile, and a target that is called `broken` fails. As the engine's host does, it refuses to
 * build from a folder that is not shared.
 */
import { type ContainerRow, HostError, type Job, type LogLine, type Stop } from "./host";
import { numberOf, step } from "./memory-images";
import type { ProjectsHost } from "./projects";
import type {
  BuildDetails,
  BuildHistory,
  BuildRow,
  BuildSpec,
  BuildStep,
  ComposeAction,
  Dropped,
  FileText,
  ProjectRow,
  Saved,
} from "./types.gen";

/** Stage, place, what it does, its milliseconds, and what it writes. Without milliseconds it is cached. */
const STEPS: readonly [string | null, string, string, number | null, string[]][] = [
  [null, "", "load build definition from Dockerfile", 40, []],
  [null, "", "load metadata for docker.io/library/node:24-alpine", 610, []],
  ["deps", "1/3", "FROM docker.io/library/node:24-alpine", null, []],
  ["deps", "2/3", "COPY package.json package-lock.json ./", null, []],
  ["deps", "3/3", "RUN npm ci", null, []],
  ["build", "1/2", "COPY . .", 90, []],
  ["build", "2/2", "RUN npm run build", 4200, ["> shop@2.4.0 build", "> vite build", "✓ 412 modules transformed.", "✓ built in 3.61s"]],
  ["stage-2", "1/2", "FROM docker.io/library/nginx:1.29-alpine", null, []],
  ["stage-2", "2/2", "COPY --from=build /srv/dist /usr/share/nginx/html", 130, []],
  [null, "", "exporting to image", 340, []],
];

const COMPOSE = `services:
  web:
    image: nginx:1.29-alpine
    ports:
      - "8000:80"
    depends_on:
      - db
  db:
    image: postgres:17
    volumes:
      - data:/var/lib/postgresql/data

volumes:
  data:
`;

function stepOf(index: number, state: BuildStep["state"]): BuildStep {
  const [stage, place, name, tookMs] = STEPS[index] ?? [null, "", "", 0, []];
  return { number: index + 1, stage, place, name, state, tookMs: state === "running" ? null : (tookMs ?? 0), note: "", fraction: null, error: "" };
}

function titleOf(index: number): string {
  const [stage, place, name] = STEPS[index] ?? [null, "", ""];
  return stage === null ? `#${index + 1} ${name}` : `#${index + 1} [${stage} ${place}] ${name}`;
}

/** What a person chooses, one after another. */
const FOLDERS = ["/home/mara/shop", "/home/mara/blog", "/srv/forum"];

const FAILURE = 'process "/bin/sh -c npm run build" did not complete successfully: exit code: 1';

/** A name as the engine's builds have it, for a build that was there before. */
function idOf(number: number): string {
  return `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`;
}

export abstract class MemoryProjects implements ProjectsHost {
  #builds: BuildRow[] = [];
  readonly #details = new Map<string, BuildDetails>();
  #opened: { name: string; folder: string }[] = [];
  readonly #files = new Map<string, { text: string; revision: number }>();
  #present = 0;
  /** How many folders were chosen so far. */
  #choices = 0;

  protected abstract containers(): readonly ContainerRow[];
  protected abstract setContainers(rows: ContainerRow[]): void;
  abstract lookAt(path: string): Promise<Dropped>;
  protected abstract built(tag: string): void;

  /** What was built before: well, and not. */
  protected stockBuilds(now: number): void {
    this.#present = now;
    if (this.containers().length === 0) return;
    const spec: BuildSpec = { folder: "/home/mara/shop", dockerfile: "", tag: "shop/web:dev", target: "", platforms: [], args: [] };
    for (const [number, change, outcome] of [
      [1, { tag: "shop/api:dev", folder: "/home/mara/shop/api", args: [{ name: "COMMIT", value: "9e1f" }] }, "done"],
      [2, { target: "build" }, "failed"],
      [3, {}, "done"],
    ] as const) {
      const row: BuildRow = { id: idOf(number), spec: { ...spec, ...change, args: [...("args" in change ? change.args : [])] }, startedMs: now - (4 - number) * 1_260_000, tookMs: 5410, outcome, failure: outcome === "failed" ? `the build failed: ${FAILURE}` : "", steps: 0, cached: 0 };
      const seen: BuildStep[] = [];
      const log: string[] = [];
      this.#play(row, (step) => seen.push(step), (line) => log.push(line));
      this.#keep(row, seen, log);
    }
  }

  async chooseFolder(): Promise<Dropped | null> {
    const folder = FOLDERS[this.#choices % FOLDERS.length] ?? "/";
    this.#choices += 1;
    return this.lookAt(folder);
  }

  async buildImage(id: string, spec: BuildSpec, job: Job): Promise<void> {
    if (new Set(spec.args.map(({ name }) => name)).size < spec.args.length) throw new HostError("two arguments have the same name", "Change it and try again.");
    if ((await this.lookAt(spec.folder)).shared === "no") throw new HostError(`${spec.folder} is not shared with the machine`, "Choose the folder once more, which asks whether to share it, or use: cove share add");
    const fails = spec.target === "broken";
    const row: BuildRow = { id, spec, startedMs: this.#present, tookMs: 5410, outcome: fails ? "failed" : "done", failure: fails ? `the build failed: ${FAILURE}` : "", steps: 0, cached: 0 };
    const [seen, log]: [BuildStep[], string[]] = [[], []];
    const plays: (() => void)[] = [];
    this.#play(row, (step) => plays.push(() => { seen.push(step); job.tell({ kind: "build", step }); }), (text) => plays.push(() => { log.push(text); job.tell({ kind: "line", text }); }));
    try {
      for (const play of plays) {
        await step(job);
        play();
      }
    } catch (error) {
      this.#keep({ ...row, outcome: "cancelled", failure: "" }, seen, log);
      throw error;
    }
    this.#keep(row, seen, log);
    if (fails) throw new HostError(row.failure, "Its log shows what the failed step wrote.");
    if (spec.tag !== "") this.built(spec.tag);
  }

  async builds(): Promise<BuildHistory> {
    return { builds: this.#builds, damaged: null };
  }

  async buildDetails(id: string): Promise<BuildDetails> {
    const details = this.#details.get(id);
    if (details === undefined) throw new HostError("steps and log of this build are not there any more");
    return details;
  }

  async forgetBuilds(ids: string[]): Promise<void> {
    this.#builds = this.#builds.filter((row) => !ids.includes(row.id));
  }

  async projects(): Promise<ProjectRow[]> {
    const rows = this.containers();
    const names = [...new Set([...rows.flatMap((row) => (row.project === null ? [] : [row.project])), ...this.#opened.map((one) => one.name)])].sort();
    return names.map((name) => {
      const folder = this.#opened.find((one) => one.name === name)?.folder ?? `/home/mara/${name}`;
      const members = rows.filter((row) => row.project === name);
      const services = [...new Set([...members.map((row) => row.service ?? row.name), ...(this.#opened.some((one) => one.name === name) ? ["db", "web"] : [])])].sort();
      return {
        name,
        folder,
        files: [`${folder}/compose.yaml`],
        services: services.map((service) => {
          const containers = members.filter((row) => (row.service ?? row.name) === service);
          return { name: service, image: containers[0]?.image ?? (service === "db" ? "postgres:17" : "nginx:1.29-alpine"), containers };
        }),
      };
    });
  }

  async openProject(folder: string): Promise<string> {
    const found = await this.lookAt(folder);
    if (found.compose === null) throw new HostError(`there is no compose file in ${folder}`, "Choose a folder that holds a compose.yaml.");
    const name = found.name.toLowerCase().replaceAll(/[^a-z0-9_-]/g, "");
    this.#opened = [...this.#opened.filter((one) => one.name !== name), { name, folder }];
    return name;
  }

  async compose(name: string, action: ComposeAction, job: Job): Promise<void> {
    const project = await this.#project(name);
    const rows = this.containers();
    if (action === "up") {
      const missing = project.services.filter((service) => service.containers.length === 0);
      for (const service of project.services) {
        await step(job);
        job.tell({ kind: "part", id: `Container ${name}-${service.name}-1`, label: `${name}-${service.name}-1`, note: "Started", fraction: 1 });
      }
      const made = missing.map((service, index): ContainerRow => ({
        id: numberOf(`${name}/${service.name}`).toString(16).padStart(8, "0").repeat(8),
        name: `${name}-${service.name}-1`,
        image: service.image,
        project: name,
        service: service.name,
        state: "running",
        health: null,
        status: "Up 1 second",
        createdMs: this.#present,
        ports: service.name === "web" ? [{ container: 80, host: 8100 + index, address: null, protocol: "tcp" }] : [],
      }));
      this.setContainers([...made, ...rows.map((row): ContainerRow => (row.project === name ? { ...row, state: "running", status: "Up 1 second" } : row))]);
      return;
    }
    this.#opened = [...this.#opened.filter((one) => one.name !== name), { name, folder: project.folder ?? "" }];
    await step(job);
    if (action === "down") this.setContainers(rows.filter((row) => row.project !== name));
    else if (action === "stop") this.setContainers(rows.map((row) => (row.project === name ? { ...row, state: "exited", status: "Exited (0) 1 second ago", health: null } : row)));
    else this.setContainers(rows.map((row) => (row.project === name ? { ...row, state: "running", status: "Up 1 second" } : row)));
  }

  followProjectLog(name: string, seen: (lines: LogLine[]) => void): Stop {
    const members = this.containers().filter((row) => row.project === name);
    const lines = Array.from({ length: members.length * 40 }, (_, index): LogLine => ({
      atMs: this.#present - 60_000 + index * 140,
      stream: "stdout",
      text: `${members[index % members.length]?.service ?? ""}-1  | request ${index} answered in ${(index * 7) % 40} ms`,
    }));
    const timer = setTimeout(() => seen(lines), 0);
    return () => clearTimeout(timer);
  }

  async readProjectFile(name: string, file: string): Promise<FileText> {
    const { text, revision } = await this.#file(name, file);
    return { text, revision: String(revision) };
  }

  async writeProjectFile(name: string, file: string, text: string, revision: string | null): Promise<Saved> {
    const known = await this.#file(name, file);
    if (!/^services:/m.test(text) || text.includes("\t")) {
      throw new HostError("compose.yaml is not valid: yaml: line 3: found character that cannot start any token", "Nothing was changed. Correct what compose names.");
    }
    if (revision !== null && revision !== String(known.revision)) return { kind: "conflict" };
    this.#files.set(file, { text, revision: known.revision + 1 });
    return { kind: "done", revision: String(known.revision + 1) };
  }

  /** What happens to a build, one thing after another. */
  #play(row: BuildRow, took: (step: BuildStep) => void, wrote: (line: string) => void): void {
    for (const [index, [, , , tookMs, lines]] of STEPS.entries()) {
      const broken = row.outcome === "failed" && index === 6;
      wrote(titleOf(index));
      if (tookMs !== null) {
        took({ ...stepOf(index, "running"), note: index === 1 ? "resolving" : "" });
        for (const line of lines) wrote(`#${index + 1} ${line}`);
      }
      if (broken) {
        took({ ...stepOf(index, "failed"), error: FAILURE });
        wrote(`#${index + 1} ERROR: ${FAILURE}`);
        wrote(`ERROR: failed to solve: ${FAILURE}`);
        return;
      }
      took(stepOf(index, tookMs === null ? "cached" : "done"));
      wrote(`#${index + 1} ${tookMs === null ? "CACHED" : `DONE ${(tookMs / 1000).toFixed(1)}s`}`);
    }
  }

  #keep(row: BuildRow, seen: readonly BuildStep[], log: string[]): void {
    const steps = [...new Map(seen.map((step) => [step.number, step])).values()];
    const ended = steps.map((one) => (one.state === "running" ? { ...one, state: "cancelled" as const } : one));
    const cached = ended.filter((one) => one.state === "cached").length;
    this.#details.set(row.id, { steps: ended, log });
    this.#builds = [{ ...row, cached, steps: cached + ended.filter((one) => one.state === "done").length }, ...this.#builds];
  }

  async #project(name: string): Promise<ProjectRow> {
    const project = (await this.projects()).find((project) => project.name === name);
    if (project === undefined) throw new HostError(`there is no project ${name} any more`, "Open its folder again.");
    return project;
  }

  async #file(name: string, file: string): Promise<{ text: string; revision: number }> {
    if (!(await this.#project(name)).files.includes(file)) throw new HostError(`${file} is no file of the project ${name}`);
    return this.#files.get(file) ?? { text: COMPOSE, revision: 1 };
  }
}
