/**
 * The shells of the window, each in a tab of its own: in a container, beside it for what its image lacks, or in the
 * machine. They belong to the window and not to a screen, so that they go on while it shows something else.
 *
 *            enter                      the host answers
 *   (none) ────────▶ under way ──┬──────────────────────▶ ended by itself, or failed with why ── again ──▶ (none)
 *                                └── end: its tab is closed, its container does not run any more, or the page goes
 */
import type { ContainerRow, Failure, Host, TerminalLink, TerminalSize } from "../host";
import { failureOf } from "./failure";

/** In one container, or in the machine: each takes a process, or a container, and a connection. */
export const MOST_SHELLS = 8;
/** In the whole window, which keeps what each of them has shown. */
export const MOST_OPEN = 24;
/** So many milliseconds it is said that something could not be copied. */
const SAID = 4000;
/** In these states a container has its processes. */
const HOLDING: readonly ContainerRow["state"][] = ["running", "paused"];

/** What shows a shell, such as xterm. It keeps what it shows while it is in no place of the page. */
export interface ShellScreen {
  readonly size: TerminalSize;
  show(bytes: Uint8Array): Promise<void>;
  /** Has it tell what is typed, and each new size. */
  hear(typed: (text: string) => void, resized: (size: TerminalSize) => void): void;
  enter(place: HTMLElement): void;
  leave(): void;
  dispose(): void;
}

type ShellHost = Pick<Host, "openTerminal" | "openDebugShell" | "openMachineShell">;

export class Shell {
  /** Whether it is one beside the container. */
  debug = $state(false);
  ended = $state<"shell" | "nothing" | null>(null);
  failure = $state.raw<Failure | null>(null);
  /** Whether what was selected could not be copied, which is no failure of the shell: said for a moment. */
  uncopied = $state(false);
  /** Counts how often it was to begin anew, for which it leaves its place. */
  round = $state(0);
  readonly number: number;
  readonly #host: ShellHost;
  readonly #container: string | null;
  #screen: ShellScreen | null = null;
  #hangUp: () => void = () => undefined;

  constructor(host: ShellHost, container: string | null, number: number, debug: boolean) {
    this.#host = host;
    this.#container = container;
    this.number = number;
    this.debug = debug;
  }

  /** Whether it goes on, or is about to begin. */
  get alive(): boolean {
    return this.ended === null && this.failure === null;
  }

  /** Shows it at a place of the page, as it was left there or elsewhere; where there is none yet, it begins. */
  enter(place: HTMLElement, make: () => ShellScreen): void {
    if (this.#screen !== null) return this.#screen.enter(place);
    const screen = make();
    // First, since the shell is told how large it is.
    screen.enter(place);
    this.#screen = screen;
    this.#hangUp = this.#begin(screen);
  }

  /** The place goes, and the shell goes on. */
  leave(): void {
    this.#screen?.leave();
  }

  /** Has it begin anew, with nothing of what was shown. */
  again(): void {
    this.end();
    this.ended = null;
    this.failure = null;
    this.round += 1;
  }

  end(): void {
    this.#hangUp();
    this.#hangUp = () => undefined;
    this.#screen?.dispose();
    this.#screen = null;
  }

  async copy(text: string): Promise<void> {
    try {
      await navigator.clipboard.writeText(text);
      this.uncopied = false;
    } catch {
      this.uncopied = true;
      setTimeout(() => (this.uncopied = false), SAID);
    }
  }

  /** Begins a shell; what ends it. */
  #begin(screen: ShellScreen): () => void {
    let link: TerminalLink | null = null;
    let typedAhead = "";
    let wanted = true;
    const ended = (began: boolean) => {
      if (wanted) this.ended = began ? "shell" : "nothing";
    };
    this.#open(screen, ended).then(
      (opened) => {
        if (!wanted) return opened.close();
        link = opened;
        opened.resize(screen.size);
        if (typedAhead !== "") opened.type(typedAhead);
      },
      (error: unknown) => {
        if (wanted) this.failure = failureOf(error);
      },
    );
    screen.hear(
      (text) => {
        if (link === null) typedAhead += text;
        else link.type(text);
      },
      (size) => link?.resize(size),
    );
    return () => {
      wanted = false;
      link?.close();
    };
  }

  #open(screen: ShellScreen, ended: (began: boolean) => void): Promise<TerminalLink> {
    const [host, id, size] = [this.#host, this.#container, screen.size];
    const seen = (bytes: Uint8Array) => screen.show(bytes);
    if (id === null) return host.openMachineShell(size, seen, ended);
    return this.debug ? host.openDebugShell(id, size, seen, ended) : host.openTerminal(id, size, seen, ended);
  }
}

/** Those of one container, or of the machine. */
export class Shells {
  /** In the order of their tabs. */
  open = $state.raw<readonly Shell[]>([]);
  /** The number of the one that is shown. */
  shown = $state(0);
  /** The container; nothing for the machine itself. */
  readonly id: string | null;
  readonly #host: ShellHost;
  readonly #all: AllShells;
  #next = 1;

  constructor(host: ShellHost, all: AllShells, id: string | null) {
    this.#host = host;
    this.#all = all;
    this.id = id;
  }

  get full(): boolean {
    return this.open.length >= MOST_SHELLS || this.#all.full;
  }

  /** How many go on. */
  get alive(): number {
    return this.open.filter((shell) => shell.alive).length;
  }

  add(debug: boolean): void {
    if (this.full) return;
    this.shown = this.#next;
    this.open = [...this.open, new Shell(this.#host, this.id, this.#next, debug)];
    this.#next += 1;
  }

  /** Has a debug shell where there is another one, such as one that could not be started. */
  turn(number: number): void {
    const shell = this.open.find((shell) => shell.number === number);
    if (shell === undefined) return;
    shell.debug = true;
    shell.again();
  }

  /** Closes one; of its neighbours the next one is shown. */
  close(number: number): void {
    this.#keep((shell) => shell.number !== number);
  }

  /** They are not looked at any more: those that have ended are past. */
  leave(): void {
    this.#keep((shell) => shell.alive);
  }

  end(): void {
    this.#keep(() => false);
  }

  #keep(stays: (shell: Shell) => boolean): void {
    const before = this.open;
    const kept = before.filter(stays);
    if (kept.length === before.length) return;
    for (const shell of before) if (!kept.includes(shell)) shell.end();
    const at = before.findIndex((shell) => shell.number === this.shown);
    const next = before.slice(at).find((shell) => kept.includes(shell)) ?? kept.at(-1);
    this.open = kept;
    this.shown = next?.number ?? 0;
  }
}

/** Those of the window. */
export class AllShells {
  readonly #host: ShellHost;
  #each = $state.raw<readonly Shells[]>([]);

  constructor(host: ShellHost) {
    this.#host = host;
  }

  get full(): boolean {
    return this.#each.reduce((count, { open }) => count + open.length, 0) >= MOST_OPEN;
  }

  /** How many go on. */
  get alive(): number {
    return this.#each.reduce((count, { alive }) => count + alive, 0);
  }

  /** How many go on in a container, or without one in the machine. */
  aliveIn(id: string | null): number {
    return this.#each.find((shells) => shells.id === id)?.alive ?? 0;
  }

  /** Those of a container, or without one of the machine: one at least, unless there are too many elsewhere. */
  enter(id: string | null): Shells {
    let found = this.#each.find((shells) => shells.id === id);
    if (found === undefined) {
      found = new Shells(this.#host, this, id);
      this.#each = [...this.#each, found];
    }
    if (found.open.length === 0) found.add(false);
    return found;
  }

  /** Ends those of containers that have no processes any more. */
  keep(rows: readonly Pick<ContainerRow, "id" | "state">[]): void {
    const kept = this.#each.filter(({ id }) => id === null || rows.some((row) => row.id === id && HOLDING.includes(row.state)));
    if (kept.length === this.#each.length) return;
    for (const shells of this.#each) if (!kept.includes(shells)) shells.end();
    this.#each = kept;
  }

  end(): void {
    for (const shells of this.#each) shells.end();
    this.#each = [];
  }
}
