/**
 * A host without an engine, for tests and for work on screens. Its state lives in this object; it is made by
 * arithmetic, never by chance, so that two runs and two screenshots are alike.
 */
import {
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
  type MountRow,
  type PortObstacle,
  type ProcessTable,
  type Publish,
  type Removal,
  type RunSpec,
  type Saved,
  type Stop,
  type TerminalLink,
  type TerminalSeen,
  type TerminalSize,
  type Upload,
  type Usage,
} from "./host";
import { pageAt } from "../format";
import { MemoryFiles } from "./memory-files";
import { step } from "./memory-images";
import { MemoryMachines } from "./memory-machines";
import { NOW, promptOf, sampleLine, sampleRow, sampleShell } from "./memory-samples";

export interface MemorySize {
  containers: number;
  lines: number;
  /**
   * `running`, `stopped`, `paused`, `slow` where it is stopped and takes its time to start and stop, `starting`, `away`
   * where no daemon answers, or `silent` where the machine runs and its engine does not answer.
   */
  machine: string;
}

const MIB = 1024 * 1024;
/** Ports of this computer that programs outside of the machine have. */
const TAKEN: readonly number[] = [9100];

const AFTER: Record<Exclude<ContainerAction, "remove">, [ContainerState, string]> = {
  start: ["running", "Up 1 second"],
  unpause: ["running", "Up 1 second"],
  restart: ["running", "Up 1 second"],
  pause: ["paused", "Up 1 second (Paused)"],
  stop: ["exited", "Exited (0) 1 second ago"],
  kill: ["exited", "Exited (137) 1 second ago"],
};

export class MemoryHost extends MemoryMachines implements Host {
  readonly #files = new Map<string, MemoryFiles>();
  #rows: ContainerRow[];
  readonly #lines: number;
  readonly #rowWatchers = new Set<(rows: ContainerRow[]) => void>();
  #autostart = false;

  constructor(size: MemorySize) {
    super(size.machine);
    this.#rows = Array.from({ length: size.containers }, (_, index) => sampleRow(index));
    this.#lines = size.lines;
    this.stock(NOW);
  }

  watchContainers(seen: (rows: ContainerRow[]) => void): Stop {
    this.#rowWatchers.add(seen);
    if (this.listed) seen(this.#rows);
    return () => this.#rowWatchers.delete(seen);
  }

  watchUsage(seen: (usage: ReadonlyMap<string, Usage>) => void, of?: string): Stop {
    // All of them are measured here, however many there are.
    if (of !== undefined) return () => undefined;
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
              memoryLimit: this.machineMemory,
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
    this.tellContainers();
  }

  async inspect(id: string): Promise<unknown> {
    this.mustAnswer();
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
    this.mustAnswer();
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

  async openPort(port: number, address: string | null): Promise<void> {
    window.open(`http://${pageAt(address, port)}/`, "_blank", "noreferrer");
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
      ports: spec.ports.map(({ address, host, container, protocol }) => ({ address: address || null, host: host === 0 ? 32_768 + this.#rows.length : host, container, protocol })),
    };
    this.#rows = [row, ...this.#rows];
    this.tellContainers();
    return row.id;
  }

  protected containers(): readonly ContainerRow[] {
    return this.#rows;
  }

  protected exchangeContainers(rows: ContainerRow[]): ContainerRow[] {
    const before = this.#rows;
    this.#rows = rows;
    return before;
  }

  protected setContainers(rows: ContainerRow[]): void {
    this.#rows = rows;
    this.tellContainers();
  }

  /** A browser tells no paths, so that tests let things fall by an event of their own. */
  watchDrags(seen: (drag: Drag) => void): Stop {
    const hear = (event: Event) => {
      if (event instanceof CustomEvent) seen(event.detail as Drag);
    };
    window.addEventListener("cove-drag", hear);
    return () => window.removeEventListener("cove-drag", hear);
  }

  /** A browser asks no page before it closes it, so that tests do by an event of their own. */
  watchClosing(asked: () => void): Stop {
    window.addEventListener("cove-close", asked);
    return () => window.removeEventListener("cove-close", asked);
  }

  async answerClosing(closes: boolean): Promise<void> {
    if (closes) window.close();
  }

  async lookAt(path: string): Promise<Dropped> {
    const name = path.split("/").pop() ?? path;
    return {
      path,
      name,
      folder: !name.includes("."),
      dockerfile: name === "shop",
      compose: name === "shop" || name === "forum" ? "compose.yaml" : null,
      shared: this.sharedAs(path),
    };
  }

  async autostart(): Promise<boolean | null> {
    return this.#autostart;
  }

  async setAutostart(on: boolean): Promise<void> {
    this.#autostart = on;
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
    this.tellContainers();
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
    this.mustAnswer();
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

  protected tellContainers(): void {
    for (const seen of this.#rowWatchers) seen(this.#rows);
    this.changed("container");
  }
}
