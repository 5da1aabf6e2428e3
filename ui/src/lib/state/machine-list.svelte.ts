/** All machines, of which the window shows one; and the form that makes another. */
import type { Failure, Host, MachineView, NewMachine } from "../host";
import { failureOf } from "./failure";

type MachinesHost = Pick<Host, "machines" | "chooseMachine">;

export class Machines {
  /** Null until the daemon has told them. */
  rows = $state.raw<readonly MachineView[] | null>(null);
  /** Why they could not be read the last time. */
  unread = $state.raw<Failure | null>(null);
  /** Why another one could not be chosen. */
  failure = $state.raw<Failure | null>(null);
  /** While another machine is being chosen. */
  busy = $state(false);
  readonly #host: MachinesHost;

  constructor(host: MachinesHost) {
    this.#host = host;
  }

  /** What was read before stays where it cannot be read now. */
  async read(): Promise<void> {
    try {
      this.rows = await this.#host.machines();
      this.unread = null;
    } catch (error) {
      this.unread = failureOf(error);
    }
  }

  /** Whether the window is to show that machine now. */
  async choose(name: string): Promise<boolean> {
    if (this.busy) return false;
    [this.busy, this.failure] = [true, null];
    try {
      await this.#host.chooseMachine(name);
      return true;
    } catch (error) {
      this.failure = failureOf(error);
      return false;
    } finally {
      this.busy = false;
    }
  }
}

export class MachineForm {
  name = $state("");
  cpus = $state("");
  /** GiB. */
  memory = $state("");
  /** GiB. */
  disk = $state("");

  /** What is to be made; null while something is not as it must be. */
  get machine(): NewMachine | null {
    const name = this.name.trim();
    const [cpus, memory, disk] = [whole(this.cpus), part(this.memory), whole(this.disk)];
    if (!/^[a-z0-9][a-z0-9-]{0,31}$/.test(name) || cpus === undefined || memory === undefined || disk === undefined) return null;
    return { name, cpus, memoryMib: memory === null ? null : Math.ceil(memory * 1024), diskGib: disk };
  }

  /** What does the same in a terminal. */
  get command(): string {
    const machine = this.machine;
    if (machine === null) return `cove machine create ${this.name.trim() || "NAME"}`;
    const words = [`cove machine create ${machine.name}`];
    if (machine.cpus !== null) words.push(`--cpus ${machine.cpus}`);
    if (machine.memoryMib !== null) words.push(`--memory ${machine.memoryMib}MiB`);
    if (machine.diskGib !== null) words.push(`--disk ${machine.diskGib}GiB`);
    return words.join(" ");
  }
}

/** A number above nothing, null where none was typed, undefined where it is none. */
function part(text: string): number | null | undefined {
  const typed = text.trim();
  if (typed === "") return null;
  return /^\d{1,6}(\.\d{1,3})?$/.test(typed) && Number(typed) > 0 ? Number(typed) : undefined;
}

function whole(text: string): number | null | undefined {
  const number = part(text);
  return typeof number === "number" && !Number.isInteger(number) ? undefined : number;
}
