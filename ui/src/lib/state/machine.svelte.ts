/** The machine as the window shows it. Its state belongs to the daemon; here is what was last heard. */
import type { Host, MachineView, Stop } from "../host";
import { say, type Word } from "../words/index.svelte";
import { failureOf } from "./containers.svelte";

const HEADLINES: Record<MachineView["phase"], Word> = {
  stopped: "machineStopped",
  starting: "machineStarting",
  running: "machineRunning",
  paused: "machinePaused",
  stopping: "machineStopping",
  failed: "machineFailed",
};

export class Machine {
  view = $state.raw<MachineView | null>(null);
  failure = $state<{ message: string; hint: string } | null>(null);
  readonly headline = $derived(this.view === null ? say("loading") : say(HEADLINES[this.view.phase]));
  /** Its name and phase, for where there is little room. */
  readonly short = $derived(this.view === null ? say("loading") : `${this.view.name} · ${say(this.view.phase)}`);
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  follow(): Stop {
    return this.#host.watchMachine((view) => (this.view = view));
  }

  start(): Promise<void> {
    return this.#attempt(() => this.#host.startMachine());
  }

  stop(): Promise<void> {
    return this.#attempt(() => this.#host.stopMachine());
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
