/** The machine as the window shows it. Its state belongs to the daemon; here is what was last heard. */
import type { Failure, Host, MachineView, Step, Stop } from "../host";
import { say, type Word } from "../words/index.svelte";
import { failureOf } from "./failure";

const HEADLINES: Record<MachineView["phase"], Word> = {
  stopped: "machineStopped",
  starting: "machineStarting",
  running: "machineRunning",
  paused: "machinePaused",
  stopping: "machineStopping",
  failed: "machineFailed",
};

export class Machine {
  /** Null until the daemon has answered, and while it does not. */
  view = $state.raw<MachineView | null>(null);
  /** Why the daemon does not answer. */
  away = $state.raw<Failure | null>(null);
  /** How far a start or a stop is that this window asked for. */
  step = $state.raw<Step | null>(null);
  failure = $state<Failure | null>(null);
  readonly phase = $derived(this.view?.phase ?? (this.away === null ? null : "failed"));
  readonly headline = $derived(
    this.view !== null ? say(HEADLINES[this.view.phase]) : this.away !== null ? say("daemonAway") : say("loading"),
  );
  /** Its name and phase, for where there is little room. */
  readonly short = $derived(this.view === null ? this.headline : `${this.view.name} · ${say(this.view.phase)}`);
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  follow(): Stop {
    return this.#host.watchMachine((news) => {
      this.view = news.kind === "seen" ? news.machine : null;
      this.away = news.kind === "away" ? news.failure : null;
    });
  }

  async start(): Promise<void> {
    await this.#attempt(() => this.#host.startMachine((step) => (this.step = step)));
    this.step = null;
  }

  async stop(): Promise<void> {
    await this.#attempt(() => this.#host.stopMachine((step) => (this.step = step)));
    this.step = null;
  }

  async #attempt(what: () => Promise<void>): Promise<void> {
    this.failure = null;
    try {
      await what();
    } catch (error) {
      this.failure = failureOf(error);
    }
  }
}
