/**
 * Machines of the host in memory, their settings, folders, certificates and logs. One is shown; a start takes its stages,
 * and a stop ends it.
 */
import {
  type CheckView,
  type ContainerRow,
  type Dropped,
  HostError,
  type LogLine,
  type MachineLogSource,
  type MachineNews,
  type MachineUsage,
  type MachineView,
  type NewMachine,
  type Reclaimed,
  type SettingsDiff,
  type SettingsView,
  type ShareRow,
  type Step,
  type Stop,
  type TerminalLink,
  type TerminalSeen,
  type TerminalSize,
  type TrustRow,
} from "./host";
import type { MachinesHost } from "./machines";
import { sampleLine, sampleShell } from "./memory-samples";
import { MemorySettings, shareRows } from "./memory-settings";
import { MemoryThings } from "./memory-things";

const MIB = 1024 * 1024;
/** What the machine uses of its disk, and what its file system takes besides. */
const DISK_USED = 2560 * MIB;
const MEMORY_USED = 420 * MIB;
/** How much of its processors' time they work. */
const CPU_LOAD = 0.24;
const DISK_TABLES = 104 * MIB;

export abstract class MemoryMachines extends MemoryThings implements MachinesHost {
  readonly #settings = new MemorySettings();
  #machine: MachineView;
  readonly #machineWatchers = new Set<(news: MachineNews) => void>();
  readonly #shared = new Map([["/home/mara", false]]);
  /** Machines that are not shown, by their names. */
  readonly #others = new Map<string, { machine: MachineView; rows: ContainerRow[] }>();
  #away = false;
  readonly #silent: boolean;
  /** How often a stop was asked for. */
  #stops = 0;
  /** What its processors have had of time, which goes on as often as somebody asks. */
  #ticks = 0;
  /** How long a stage of a start or a stop takes: milliseconds. */
  readonly #stageMs: number;

  /**
   * The machine is in one of the states of `MemorySize`. In the page, tests have it started and stopped by an event of
   * their own, as somebody else would.
   */
  constructor(state: string) {
    super();
    if (typeof window !== "undefined") {
      window.addEventListener("cove-machine", (event) => {
        const stop = event instanceof CustomEvent && event.detail === "stop";
        const done = stop ? this.stopMachine(() => undefined) : this.startMachine(() => undefined);
        // A start that a stop has ended.
        done.catch(() => undefined);
      });
    }
    this.#stageMs = state === "slow" ? 3000 : 30;
    this.#silent = state === "silent";
    const running = state === "running" || this.#silent;
    this.#away = state === "away";
    this.#machine = {
      name: "default",
      phase: running ? "running" : state === "starting" || state === "paused" ? state : "stopped",
      stage: state === "starting" ? "Starting the engine" : null,
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

  /** Tells everybody of the containers. */
  protected abstract tellContainers(): void;
  /** Has these be the containers and returns those before; nobody is told, since the page begins anew. */
  protected abstract exchangeContainers(rows: ContainerRow[]): ContainerRow[];

  /** In bytes. */
  protected get machineMemory(): number {
    return this.#machine.memory;
  }

  /** Whether an engine lists its containers. */
  protected get listed(): boolean {
    return this.#machine.phase === "running" && !this.#away && !this.#silent;
  }

  /** Whether a folder is shared, by itself or within another one. */
  protected sharedAs(path: string): Dropped["shared"] {
    const nearest = [...this.#shared.keys()].filter((share) => `${path}/`.startsWith(`${share}/`)).sort().pop();
    const readOnly = nearest === undefined ? undefined : this.#shared.get(nearest);
    return readOnly === undefined ? "no" : readOnly ? "read-only" : "read-write";
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
    this.tellContainers();
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
        command: null,
      },
      { name: "QEMU", state: "ok", evidence: "qemu-system-x86_64 10.0.2", fix: "", command: null },
      { name: "guest image", state: "ok", evidence: "every file matches its manifest", fix: "", command: null },
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
    this.#ticks += 100;
    return { diskOnHost: this.#machine.diskOnHost, diskUsed: DISK_USED, memoryUsed: MEMORY_USED, cpu: { busy: this.#ticks * CPU_LOAD, all: this.#ticks } };
  }

  async reclaimDisk(): Promise<Reclaimed> {
    this.#mustRun();
    await new Promise((done) => setTimeout(done, 2500));
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
    this.#others.set(this.#machine.name, { machine: this.#machine, rows: this.exchangeContainers(chosen.rows) });
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

  async shareFolder(path: string, readOnly: boolean): Promise<void> {
    this.#shared.set(path, readOnly);
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
}
