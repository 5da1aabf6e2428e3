/**
 * A host without an engine, for tests and for work on screens. Its state lives in this object; it is made by
 * arithmetic, never by chance, so that two runs and two screenshots are alike.
 */
import {
  type CheckView,
  type ContainerAction,
  type ContainerRow,
  type ContainerState,
  type Drag,
  type Dropped,
  type FilesOf,
  type FilesView,
  type FileText,
  type Host,
  HostError,
  type Job,
  type LogLine,
  type MachineLogSource,
  type MachineNews,
  type MachineUsage,
  type MachineView,
  type MountRow,
  type NewMachine,
  type PortBinding,
  type PortObstacle,
  type ProcessTable,
  type Publish,
  type Reclaimed,
  type Removal,
  type RunSpec,
  type Saved,
  type SettingsDiff,
  type SettingsView,
  type ShareRow,
  type Step,
  type Stop,
  type TerminalLink,
  type TerminalSeen,
  type TerminalSize,
  type TrustRow,
  type Upload,
  type Usage,
} from "./host";
import { MemoryFiles } from "./memory-files";
import { step } from "./memory-images";
import { MemoryThings } from "./memory-things";
import { MemorySettings, shareRows } from "./memory-settings";

export interface MemorySize {
  containers: number;
  lines: number;
  /**
   * `running`, `stopped`, `slow` where it is stopped and takes its time to start and stop, `starting`, `away` where no
   * daemon answers, or `silent` where the machine runs and its engine does not answer.
   */
  machine: string;
}

/** A fixed present: 1 March 2026, 12:00 UTC. */
const NOW = Date.UTC(2026, 2, 1, 12);
const MIB = 1024 * 1024;
/** What the machine uses of its disk, and what its file system takes besides. */
const DISK_USED = 2560 * MIB;
const MEMORY_USED = 420 * MIB;
const DISK_TABLES = 104 * MIB;

/** Ports of this computer that programs outside of the machine have. */
const TAKEN: readonly number[] = [9100];

const STACK: readonly { service: string; image: string; port?: number }[] = [
  { service: "web", image: "nginx:1.29-alpine", port: 80 },
  { service: "api", image: "shop/api:dev", port: 3000 },
  { service: "db", image: "postgres:17", port: 5432 },
  { service: "cache", image: "redis:8-alpine", port: 6379 },
  { service: "worker", image: "shop/worker:dev" },
];
const PROJECTS = ["shop", "blog", "metrics"];

function sampleRow(index: number): ContainerRow {
  const id = (index + 1).toString(16).padStart(4, "0").repeat(16);
  const createdMs = NOW - (index + 1) * 37 * 60_000;
  const part = STACK[index % STACK.length];
  const alone = index % 7 === 6 || part === undefined;
  if (alone) {
    const ended = index % 2 === 0;
    return {
      id,
      name: `scratch-${index}`,
      image: "alpine:3.23",
      project: null,
      service: null,
      state: ended ? "exited" : "running",
      health: null,
      status: ended ? "Exited (1) 12 minutes ago" : "Up 37 minutes",
      createdMs,
      ports: [],
    };
  }
  const round = Math.floor(index / 15);
  const project = (PROJECTS[Math.floor(index / 5) % 3] ?? "shop") + (round > 0 ? `-${round}` : "");
  const port: PortBinding[] =
    part.port === undefined ? [] : [{ container: part.port, host: 8000 + index, protocol: "tcp" }];
  const state: ContainerState = index % 11 === 4 ? "restarting" : index % 13 === 9 ? "paused" : "running";
  const up = `Up ${(index % 9) + 2} hours`;
  return {
    id,
    name: `${project}-${part.service}-1`,
    image: part.image,
    project,
    service: part.service,
    state,
    health: part.service === "db" ? "healthy" : part.service === "api" && index > 5 ? "unhealthy" : null,
    status: state === "restarting" ? "Restarting (137) 4 seconds ago" : `${up}${state === "paused" ? " (Paused)" : ""}`,
    createdMs,
    ports: port,
  };
}

function sampleLine(index: number): LogLine {
  const words = [
    "GET /api/products?page=2 200 14ms",
    "INFO  cache: 128 keys warmed",
    "GET /healthz 200 1ms",
    "WARN  pool: waited 412 ms for a connection",
    'POST /api/orders 201 38ms user="mara"',
    "\u001b[31mERROR\u001b[0m order 7731: payment provider did not answer in 5 s",
    "DEBUG query took 3.1 ms: select id, name from products",
  ];
  const text = words[index % words.length] ?? "";
  return {
    atMs: NOW - 3_600_000 + index * 9,
    stream: text.includes("ERROR") ? "stderr" : "stdout",
    text: `${text} #${index}`,
  };
}

/** What the shell of a container asks with. */
function promptOf(name: string): string {
  return `\u001b[1;36m${name}\u001b[0m:/# `;
}

/** A shell that says what is typed, and ends by `exit`. */
function sampleShell(prompt: string, seen: TerminalSeen, ended: (began: boolean) => void): TerminalLink {
  const say = (text: string) => void seen(new TextEncoder().encode(text));
  let line = "";
  setTimeout(() => say(prompt), 0);
  return {
    type: (text) => {
      for (const key of text) {
        if (key !== "\r") {
          line += key;
          say(key);
          continue;
        }
        if (line === "exit") return ended(true);
        say(`\r\n${line.replace(/^echo /, "")}\r\n${prompt}`);
        line = "";
      }
    },
    resize: () => undefined,
    close: () => undefined,
  };
}

const AFTER: Record<Exclude<ContainerAction, "remove">, [ContainerState, string]> = {
  start: ["running", "Up 1 second"],
  unpause: ["running", "Up 1 second"],
  restart: ["running", "Up 1 second"],
  pause: ["paused", "Up 1 second (Paused)"],
  stop: ["exited", "Exited (0) 1 second ago"],
  kill: ["exited", "Exited (137) 1 second ago"],
};

export class MemoryHost extends MemoryThings implements Host {
  readonly #settings = new MemorySettings();
  readonly #files = new Map<string, MemoryFiles>();
  #rows: ContainerRow[];
  #machine: MachineView;
  readonly #lines: number;
  readonly #rowWatchers = new Set<(rows: ContainerRow[]) => void>();
  readonly #machineWatchers = new Set<(news: MachineNews) => void>();
  readonly #shared = new Map([["/home/mara", false]]);
  /** Machines that are not shown, by their names. */
  readonly #others = new Map<string, { machine: MachineView; rows: ContainerRow[] }>();
  #away = false;
  readonly #silent: boolean;
  #autostart = false;
  /** How often a stop was asked for. */
  #stops = 0;
  /** How long a stage of a start or a stop takes: milliseconds. */
  readonly #stageMs: number;

  constructor(size: MemorySize) {
    super();
    this.#stageMs = size.machine === "slow" ? 3000 : 30;
    this.#rows = Array.from({ length: size.containers }, (_, index) => sampleRow(index));
    this.#lines = size.lines;
    this.stock(NOW);
    this.#silent = size.machine === "silent";
    const running = size.machine === "running" || this.#silent;
    this.#away = size.machine === "away";
    this.#machine = {
      name: "default",
      phase: running ? "running" : size.machine === "starting" ? "starting" : "stopped",
      stage: size.machine === "starting" ? "Starting the engine" : null,
      failure: null,
      consoleTail: [],
      backend: "emulated",
      backendReason: "this computer's processor shows no hardware virtualisation",
      dockerHost: "unix:///run/user/1000/cove/default/docker.sock",
      cpus: 2,
      memory: 2048 * MIB,
      memoryOnHost: running ? 611 * MIB : null,
      diskSize: 64 * 1024 * MIB,
      diskOnHost: 3277 * MIB,
      uptimeS: running ? 7384 : null,
      engineVersion: "26.1.5",
      timings: [
        { name: "spawn", startUs: 0, endUs: 210_000 },
        { name: "kernel", startUs: 210_000, endUs: 2_300_000 },
        { name: "data-disk", startUs: 2_300_000, endUs: 3_050_000 },
        { name: "containerd", startUs: 3_050_000, endUs: 5_400_000 },
        { name: "dockerd", startUs: 5_400_000, endUs: 8_900_000 },
      ],
      notices: [],
    };
  }

  watchMachine(seen: (news: MachineNews) => void): Stop {
    this.#machineWatchers.add(seen);
    seen(this.#news());
    return () => this.#machineWatchers.delete(seen);
  }

  async startMachine(step: (step: Step) => void): Promise<void> {
    const stops = this.#stops;
    this.#away = false;
    this.#setMachine({ phase: "starting", stage: "Booting the kernel" });
    for (const fraction of [0.1, 0.5, 0.9]) {
      step({ message: "Booting the kernel", fraction });
      await this.#stageEnds();
      this.#goOn(stops);
    }
    this.#setMachine({ phase: "running", stage: null, uptimeS: 0, memoryOnHost: 611 * MIB });
    this.#tell();
  }

  stopMachine(step: (step: Step) => void): Promise<void> {
    this.#stops += 1;
    return this.#takeDown(step);
  }

  async restartMachine(step: (step: Step) => void): Promise<void> {
    const stops = this.#stops;
    await this.#takeDown(step);
    this.#goOn(stops);
    await this.startMachine(step);
  }

  async #takeDown(step: (step: Step) => void): Promise<void> {
    this.#setMachine({ phase: "stopping", stage: null });
    step({ message: "Stopping containers and the engine", fraction: 0.1 });
    await this.#stageEnds();
    this.#setMachine({ phase: "stopped", stage: null, uptimeS: null, memoryOnHost: null });
  }

  #stageEnds(): Promise<void> {
    return new Promise((done) => setTimeout(done, this.#stageMs));
  }

  /** Refuses, in the daemon's words, where there has been a stop since there were so many. */
  #goOn(stops: number): void {
    if (this.#stops !== stops) throw new HostError("the start was cancelled", "start it again with `cove start`", null, "wrong_state");
  }

  async checks(): Promise<CheckView[]> {
    return [
      {
        name: "hardware virtualisation",
        state: "warning",
        evidence: "the processor shows neither vmx nor svm",
        fix: "Enable virtualisation in the firmware, if this computer has it.",
      },
      { name: "QEMU", state: "ok", evidence: "qemu-system-x86_64 10.0.2", fix: "" },
      { name: "guest image", state: "ok", evidence: "every file matches its manifest", fix: "" },
    ];
  }

  async diagnostics(): Promise<string> {
    const checks = (await this.checks()).map((check) => `${check.state.padEnd(7)}  ${check.name}: ${check.evidence}`);
    const settings = ['{\n  "machine.cpus": 2,', '  "proxy.http": "http://********@proxy.example:3128"\n}'];
    const news = this.#news();
    const state = news.kind === "seen" ? `machine  ${news.machine.name}: ${news.machine.phase}` : `daemon  none: ${news.failure.message}`;
    return ["Cove diagnostics, 2026-03-01 12:00:00 UTC", state, "", "== doctor ==", ...checks, "", "== settings ==", ...settings, ""].join("\n");
  }

  async machineUsage(): Promise<MachineUsage> {
    this.#mustRun();
    return { diskOnHost: this.#machine.diskOnHost, diskUsed: DISK_USED, memoryUsed: MEMORY_USED };
  }

  async reclaimDisk(): Promise<Reclaimed> {
    this.#mustRun();
    await new Promise((done) => setTimeout(done, 400));
    const before = this.#machine.diskOnHost;
    const after = Math.min(before, DISK_USED + DISK_TABLES);
    this.#setMachine({ diskOnHost: after });
    return { before, after };
  }

  async machines(): Promise<MachineView[]> {
    const all = [this.#machine, ...[...this.#others.values()].map((other) => other.machine)];
    return all.sort((one, other) => one.name.localeCompare(other.name));
  }

  async chooseMachine(name: string): Promise<void> {
    if (name === this.#machine.name) return;
    const chosen = this.#other(name);
    this.#others.delete(name);
    this.#others.set(this.#machine.name, { machine: this.#machine, rows: this.#rows });
    this.#rows = chosen.rows;
    this.#setMachine(chosen.machine);
  }

  async createMachine({ name, cpus, memoryMib, diskGib }: NewMachine): Promise<void> {
    if ((await this.machines()).some((machine) => machine.name === name)) {
      throw new HostError(`machine \`${name}\` exists already`, "choose another name");
    }
    const machine: MachineView = {
      ...this.#machine,
      name,
      phase: "stopped",
      stage: null,
      cpus: cpus ?? 2,
      memory: (memoryMib ?? 2048) * MIB,
      memoryOnHost: null,
      diskSize: (diskGib ?? 64) * 1024 * MIB,
      diskOnHost: 0,
      uptimeS: null,
      timings: [],
    };
    this.#others.set(name, { machine, rows: [] });
  }

  async deleteMachine(name: string, confirm: string): Promise<void> {
    if (name === this.#machine.name) {
      throw new HostError(`machine \`${name}\` is the one that this window shows`, "Show another machine first.");
    }
    const { machine } = this.#other(name);
    if (machine.phase !== "stopped") throw new HostError(`machine \`${name}\` is ${machine.phase}`, "stop it first");
    if (confirm !== name) throw new HostError(`machine \`${name}\` was not deleted: its name was not confirmed`);
    this.#others.delete(name);
  }

  watchContainers(seen: (rows: ContainerRow[]) => void): Stop {
    this.#rowWatchers.add(seen);
    if (this.#machine.phase === "running" && !this.#away && !this.#silent) seen(this.#rows);
    return () => this.#rowWatchers.delete(seen);
  }

  watchUsage(seen: (usage: ReadonlyMap<string, Usage>) => void): Stop {
    let tick = 0;
    const timer = setInterval(() => {
      tick += 1;
      const running = this.#rows.filter((row) => row.state === "running");
      seen(
        new Map(
          running.map((row, index) => [
            row.id,
            {
              atMs: NOW + tick * 1000,
              cpu: 0.12 + 0.1 * Math.sin(tick / 3 + index),
              memory: (24 + ((index * 17) % 160)) * MIB,
              received: tick * (1200 + index * 90),
              sent: tick * (5400 + index * 310),
              read: 18 * MIB,
              written: tick * 4096,
              processes: 1 + (index % 6),
            },
          ]),
        ),
      );
    }, 1000);
    return () => clearInterval(timer);
  }

  async act(action: ContainerAction, id: string): Promise<void> {
    this.mustAnswer();
    this.#find(id);
    if (action === "remove") {
      this.#rows = this.#rows.filter((row) => row.id !== id);
    } else {
      const [state, status] = AFTER[action];
      this.#rows = this.#rows.map((row) => (row.id === id ? { ...row, state, status, health: null } : row));
    }
    this.#tell();
  }

  async inspect(id: string): Promise<unknown> {
    const row = this.#find(id);
    return {
      Id: row.id,
      Name: `/${row.name}`,
      Created: new Date(row.createdMs).toISOString(),
      State: { Status: row.state, ExitCode: 0 },
      Config: { Image: row.image, Env: ["PATH=/usr/bin:/bin", "TZ=UTC"], WorkingDir: "/srv" },
      Mounts: [{ Type: "bind", Source: "/home/mara/shop", Destination: "/srv", RW: true }],
      NetworkSettings: { Networks: { [`${row.project ?? "bridge"}_default`]: { IPAddress: "172.18.0.4" } } },
    };
  }

  async mounts(id: string): Promise<MountRow[]> {
    const row = this.#find(id);
    return [
      { kind: "bind", source: "/home/mara/shop", target: "/srv", readOnly: false },
      { kind: "volume", source: `${row.project ?? "scratch"}_data`, target: "/var/lib/data", readOnly: false },
      { kind: "bind", source: "/home/mara/shop/nginx.conf", target: "/etc/nginx/nginx.conf", readOnly: true },
    ];
  }

  async processes(id: string): Promise<ProcessTable> {
    if (this.#find(id).state !== "running") throw new HostError("the container is not running");
    return {
      titles: ["PID", "USER", "TIME", "COMMAND"],
      rows: [
        ["412", "root", "0:02", "nginx: master process nginx -g daemon off;"],
        ["433", "101", "0:11", "nginx: worker process"],
        ["434", "101", "0:09", "nginx: worker process"],
      ],
    };
  }

  /** The image of an API has no shell. */
  async openTerminal(id: string, _size: TerminalSize, seen: TerminalSeen, ended: (began: boolean) => void): Promise<TerminalLink> {
    const row = this.#find(id);
    if (row.service !== "api") return sampleShell(promptOf(row.name), seen, ended);
    const refusal = 'exec failed: unable to start container process: exec: "sh": executable file not found in $PATH\r\n';
    setTimeout(() => void seen(new TextEncoder().encode(refusal)).then(() => ended(false)), 0);
    return { type: () => undefined, resize: () => undefined, close: () => undefined };
  }

  async openDebugShell(id: string, _size: TerminalSize, seen: TerminalSeen, ended: (began: boolean) => void): Promise<TerminalLink> {
    const row = this.#find(id);
    if (row.state !== "running") throw new HostError("the container does not run", "Start it: a debug shell shares its processes and its network.");
    return sampleShell(promptOf(`beside-${row.name}`), seen, ended);
  }

  followLog(id: string, seen: (lines: LogLine[]) => void): Stop {
    this.#find(id);
    let next = 0;
    const batch = () => {
      const size = Math.min(5000, this.#lines - next);
      if (size <= 0) return;
      const from = next;
      next += size;
      seen(Array.from({ length: size }, (_, index) => sampleLine(from + index)));
      timer = setTimeout(batch, 0);
    };
    let timer = setTimeout(batch, 0);
    return () => clearTimeout(timer);
  }

  async saveText(name: string): Promise<string | null> {
    return `/home/mara/${name}`;
  }

  async portsFree(ports: Publish[]): Promise<(PortObstacle | null)[]> {
    const taken = new Set([...TAKEN, ...ports.map((port) => port.host)]);
    return ports.map(({ host }) => {
      if (!TAKEN.includes(host)) return null;
      let free = host + 1;
      while (taken.has(free)) free += 1;
      return { kind: "taken", free };
    });
  }

  async waitForPage(id: string, port: number, job: Job): Promise<number> {
    await step(job);
    const host = this.#find(id).ports.find((published) => published.container === port)?.host ?? null;
    if (host === null) throw new HostError(`the container does not publish its port ${port}`, "Remove it, and run it again.");
    return host;
  }

  async openPort(port: number): Promise<void> {
    window.open(`http://localhost:${port}/`, "_blank", "noreferrer");
  }

  async run(spec: RunSpec, job: Job): Promise<string> {
    if (!this.hasImage(spec.image)) await this.pullImage(spec.image, job);
    if (this.#rows.some((row) => row.name === spec.name)) {
      throw new HostError(`the name \`${spec.name}\` is in use`, "Choose another name, or remove the other container.");
    }
    const row: ContainerRow = {
      ...sampleRow(this.#rows.length),
      name: spec.name || `quiet_cove_${this.#rows.length}`,
      image: spec.image,
      project: null,
      service: null,
      state: "running",
      health: null,
      status: "Up 1 second",
      // The engine chooses those that are free for the asking.
      ports: spec.ports.map(({ host, container, protocol }) => ({ host: host === 0 ? 32_768 + this.#rows.length : host, container, protocol })),
    };
    this.#rows = [row, ...this.#rows];
    this.#tell();
    return row.id;
  }

  protected containers(): readonly ContainerRow[] {
    return this.#rows;
  }

  protected setContainers(rows: ContainerRow[]): void {
    this.#rows = rows;
    this.#tell();
  }

  /** A browser tells no paths, so that tests let things fall by an event of their own. */
  watchDrags(seen: (drag: Drag) => void): Stop {
    const hear = (event: Event) => {
      if (event instanceof CustomEvent) seen(event.detail as Drag);
    };
    window.addEventListener("cove-drag", hear);
    return () => window.removeEventListener("cove-drag", hear);
  }

  async lookAt(path: string): Promise<Dropped> {
    const name = path.split("/").pop() ?? path;
    const nearest = [...this.#shared.keys()].filter((share) => `${path}/`.startsWith(`${share}/`)).sort().pop();
    const readOnly = nearest === undefined ? undefined : this.#shared.get(nearest);
    return {
      path,
      name,
      folder: !name.includes("."),
      dockerfile: name === "shop",
      compose: name === "shop" || name === "forum" ? "compose.yaml" : null,
      shared: readOnly === undefined ? "no" : readOnly ? "read-only" : "read-write",
    };
  }

  async shareFolder(path: string, readOnly: boolean): Promise<void> {
    this.#shared.set(path, readOnly);
  }

  async autostart(): Promise<boolean | null> {
    return this.#autostart;
  }

  async setAutostart(on: boolean): Promise<void> {
    this.#autostart = on;
  }

  async settings(): Promise<SettingsView> {
    return this.#settings.view();
  }

  async changeSettings(values: Record<string, string | null>, shown: string | null): Promise<SettingsDiff> {
    return this.#settings.change(values, shown);
  }

  async shares(): Promise<ShareRow[]> {
    return shareRows(this.#shared);
  }

  async shareChosen(readOnly: boolean): Promise<boolean> {
    this.#shared.set("/srv/chosen", readOnly);
    return true;
  }

  async unshare(path: string): Promise<void> {
    if (!this.#shared.delete(path)) throw new HostError(`\`${path}\` is not shared`);
  }

  async trusted(): Promise<TrustRow[]> {
    return this.#settings.trusted();
  }

  async trustChosen(): Promise<boolean> {
    this.#settings.trust("CN=Chosen Root");
    return true;
  }

  async distrust(fingerprint: string): Promise<void> {
    this.#settings.distrust(fingerprint);
  }

  async openMachineShell(_size: TerminalSize, seen: TerminalSeen, ended: (began: boolean) => void): Promise<TerminalLink> {
    this.#mustRun();
    return sampleShell("cove:~# ", seen, ended);
  }

  followMachineLog(source: MachineLogSource, seen: (lines: LogLine[]) => void): Stop {
    const lines = Array.from({ length: 60 }, (_, index): LogLine => ({ ...sampleLine(index), stream: "stdout", text: `${source}: line ${index}` }));
    const timer = setTimeout(() => seen(lines), 0);
    return () => clearTimeout(timer);
  }

  async removals(ids: string[]): Promise<Removal[]> {
    const rows = this.#rows.filter((row) => ids.includes(row.id));
    return rows.map((row) => ({
      id: row.id,
      name: row.name,
      running: row.state === "running" || row.state === "paused" || row.state === "restarting",
      volumes: row.service === "cache" ? ["/data"] : [],
    }));
  }

  async renameContainer(id: string, name: string): Promise<void> {
    const row = this.#find(id);
    if (this.#rows.some((other) => other.name === name)) throw new HostError(`the name \`${name}\` is in use`, "Choose another name.", null, "conflict");
    this.#rows = this.#rows.map((other) => (other === row ? { ...row, name } : other));
    this.#tell();
  }

  async commitContainer(id: string): Promise<void> {
    this.#find(id);
  }

  async runLine(id: string): Promise<string> {
    const row = this.#find(id);
    const ports = row.ports.flatMap((port) => (port.host === null ? [] : [`--publish ${port.host}:${port.container} `]));
    return `docker run --detach --name ${row.name} ${ports.join("")}${row.image}`;
  }

  // Files of a container or a volume: see memory-files.ts.
  async filesAt(of: FilesOf, path: string): Promise<FilesView> {
    return this.#filesOf(of).at(path);
  }

  async readFile(of: FilesOf, path: string): Promise<FileText> {
    return this.#filesOf(of).read(path);
  }

  async writeFile(of: FilesOf, path: string, text: string, revision: string | null): Promise<Saved> {
    return this.#filesOf(of).write(path, text, revision);
  }

  async makeFolder(of: FilesOf, path: string, name: string): Promise<void> {
    this.#filesOf(of).makeFolder(path, name);
  }

  async renameFile(of: FilesOf, path: string, name: string): Promise<void> {
    this.#filesOf(of).rename(path, name);
  }

  async removeFile(of: FilesOf, path: string, job: Job): Promise<void> {
    await step(job);
    this.#filesOf(of).remove(path);
  }

  async downloadFile(of: FilesOf, path: string, folder: boolean, job: Job): Promise<string | null> {
    await this.filesAt(of, path);
    await this.work(job);
    return `/home/mara/Downloads${path.slice(path.lastIndexOf("/"))}${folder ? ".tar" : ""}`;
  }

  async chooseFiles(): Promise<string[]> {
    return ["/home/mara/chosen.txt"];
  }

  /** What is called like a socket is one, and left out. */
  async sendFiles(of: FilesOf, folder: string, paths: string[], replace: string[], job: Job): Promise<Upload> {
    const files = this.#filesOf(of);
    const name = (path: string) => path.slice(path.lastIndexOf("/") + 1);
    const names = paths.map(name).filter((name) => !replace.includes(name) && files.has(folder, name));
    if (names.length > 0) return { kind: "taken", names };
    await this.work(job);
    const leftOut = paths.filter((path) => path.endsWith(".sock"));
    for (const path of paths) if (!leftOut.includes(path)) files.put(folder, name(path), `sent from ${path}\n`);
    return { kind: "done", leftOut: leftOut.length, leftOutNames: leftOut.map(name) };
  }

  #filesOf(of: FilesOf): MemoryFiles {
    if (of.kind === "volume") return this.filesOfVolume(of.name);
    const row = this.#find(of.id);
    const files = this.#files.get(of.id) ?? MemoryFiles.ofContainer(NOW);
    files.running = row.state === "running" || row.state === "paused";
    this.#files.set(of.id, files);
    return files;
  }

  #find(id: string): ContainerRow {
    const row = this.#rows.find((candidate) => candidate.id === id);
    if (row === undefined) throw new HostError(`there is no container ${id.slice(0, 12)}`);
    return row;
  }

  #other(name: string): { machine: MachineView; rows: ContainerRow[] } {
    const other = this.#others.get(name);
    if (other === undefined) throw new HostError(`there is no machine \`${name}\``);
    return other;
  }

  #mustRun(): void {
    if (this.#machine.phase === "running") return;
    throw new HostError(`machine \`default\` is ${this.#machine.phase} and cannot be asked`, "start it with `cove start`", null, "wrong_state");
  }

  #setMachine(change: Partial<MachineView>): void {
    this.#machine = { ...this.#machine, ...change };
    for (const seen of this.#machineWatchers) seen(this.#news());
  }

  #news(): MachineNews {
    if (!this.#away) return { kind: "seen", machine: this.#machine };
    return {
      kind: "away",
      failure: {
        message: "the daemon did not start: the socket's path is too long",
        hint: "Set XDG_RUNTIME_DIR or COVE_HOME to a shorter directory.",
      },
    };
  }

  #tell(): void {
    for (const seen of this.#rowWatchers) seen(this.#rows);
    this.changed("container");
  }
}
