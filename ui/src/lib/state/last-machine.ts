/** Which machine the window showed last, so that it shows the same one when it is started again. */
import type { Host, Stop } from "../host";
import { kept, type Kept } from "./kept";

type MachinesHost = Pick<Host, "watchMachine" | "machines" | "chooseMachine">;

const KEY = "machine";
/** What the window begins with, unless the environment names another machine. */
const USUAL = "default";
/** A daemon that does not answer within this time is not waited for: the window says what is wrong with it. */
const PATIENCE = 5000;

export function rememberMachine(name: string, choices: Kept = kept): void {
  choices.set(KEY, name === USUAL ? null : name);
}

/**
 * Has the host show the machine that was shown last. Where that is gone it is forgotten, and where the environment has
 * named one, or no daemon answers, nothing is changed.
 */
export async function recallMachine(host: MachinesHost, choices: Kept = kept, patience = PATIENCE): Promise<void> {
  const name = choices.get(KEY);
  if (name === null || (await shownBy(host, patience)) !== USUAL) return;
  try {
    const machines = await host.machines();
    if (machines.some((machine) => machine.name === name)) await host.chooseMachine(name);
    else choices.set(KEY, null);
  } catch {
    // The usual one is shown; the next start tries again.
  }
}

/** The machine that the host shows; null where no daemon answers in time. */
async function shownBy(host: MachinesHost, patience: number): Promise<string | null> {
  let stop: Stop = () => undefined;
  let late: ReturnType<typeof setTimeout> | undefined;
  const name = await new Promise<string | null>((told) => {
    late = setTimeout(() => told(null), patience);
    stop = host.watchMachine((news) => told(news.kind === "seen" ? news.machine.name : null));
  });
  clearTimeout(late);
  stop();
  return name;
}
