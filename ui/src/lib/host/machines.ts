/** What a host offers of the machine that is shown, and of the others. */
import type { MachineLogSource, NewMachine, Stop, TerminalLink, TerminalSeen, TerminalSize } from "./host";
import type {
  CheckView,
  LogLine,
  MachineNews,
  MachineUsage,
  MachineView,
  Reclaimed,
  SettingsDiff,
  SettingsView,
  ShareRow,
  Step,
  TrustRow,
} from "./types.gen";

export interface MachinesHost {
  /** What the machine does at once, then again whenever something about it changes. */
  watchMachine(seen: (news: MachineNews) => void): Stop;
  /** Starts machine and daemon, and tells each stage. */
  startMachine(step: (step: Step) => void): Promise<void>;
  /** Stops the machine in order, and tells each stage. A start or a restart that is under way ends with it, refused. */
  stopMachine(step: (step: Step) => void): Promise<void>;
  /** Stops the machine and starts it again, and tells each stage. */
  restartMachine(step: (step: Step) => void): Promise<void>;
  checks(): Promise<CheckView[]>;
  /** All that helps to find out what is wrong, with or without a daemon, as text in which secrets are masked. */
  diagnostics(): Promise<string>;
  /** What it uses of its disk and memory, while it runs. */
  machineUsage(): Promise<MachineUsage>;
  /** Has it give back what it does not use of its disk, which may take minutes. */
  reclaimDisk(): Promise<Reclaimed>;

  /** All machines, by their names. Everything else here is about the one that the window shows. */
  machines(): Promise<MachineView[]>;
  /** Shows another machine from now on. What the page hears and has under way ends; it begins anew. */
  chooseMachine(name: string): Promise<void>;
  /** Neither starts nor shows it. */
  createMachine(machine: NewMachine): Promise<void>;
  /** Deletes a stopped machine that is not shown, with everything in it; `confirm` is its name once more. */
  deleteMachine(name: string, confirm: string): Promise<void>;

  settings(): Promise<SettingsView>;
  /**
   * All of these keys, or none; null puts one back to its default. With the mark of the difference that a person was
   * shown they are applied, if that is still the difference; without, it only tells what they would come to.
   */
  changeSettings(values: Record<string, string | null>, shown: string | null): Promise<SettingsDiff>;
  shares(): Promise<ShareRow[]>;
  /** Asks for a folder and shares it; whether one was chosen. */
  shareChosen(readOnly: boolean): Promise<boolean>;
  unshare(path: string): Promise<void>;
  trusted(): Promise<TrustRow[]>;
  /** Asks for a file of certificates and trusts them; whether one was chosen. */
  trustChosen(): Promise<boolean>;
  distrust(fingerprint: string): Promise<void>;
  /** A login shell in the machine itself, while it runs; otherwise as `openTerminal`. */
  openMachineShell(size: TerminalSize, seen: TerminalSeen, ended: (began: boolean) => void): Promise<TerminalLink>;
  /** The last lines in batches, then what comes. */
  followMachineLog(source: MachineLogSource, seen: (lines: LogLine[]) => void): Stop;
}
