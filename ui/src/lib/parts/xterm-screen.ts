/** A shell's screen by xterm. */
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import type { TerminalSize } from "../host";
import { paneStep } from "../state/panes";
import type { ShellScreen } from "../state/shells.svelte";

export class XtermScreen implements ShellScreen {
  readonly #terminal: Terminal;
  readonly #fit = new FitAddon();
  readonly #resized = new ResizeObserver(() => this.#fit.fit());
  readonly #label: string;

  /** The label is read out; what is selected is copied by a key. */
  constructor(label: string, copy: (text: string) => void) {
    this.#label = label;
    const terminal = new Terminal({
      fontSize: 12.5,
      lineHeight: 1.2,
      cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches,
      screenReaderMode: true,
      scrollback: 10_000,
    });
    terminal.loadAddon(this.#fit);
    // Every key but the one that leads out, without which nobody left by keyboard, and the one that copies.
    terminal.attachCustomKeyEventHandler((event) => {
      if (paneStep(event) !== 0) return false;
      if (!event.ctrlKey || !event.shiftKey || event.key.toLowerCase() !== "c") return true;
      event.preventDefault();
      if (event.type === "keydown" && terminal.hasSelection()) copy(terminal.getSelection());
      return false;
    });
    this.#terminal = terminal;
  }

  get size(): TerminalSize {
    return { columns: this.#terminal.cols, rows: this.#terminal.rows };
  }

  show(bytes: Uint8Array): Promise<void> {
    return new Promise((shown) => this.#terminal.write(bytes, shown));
  }

  hear(typed: (text: string) => void, resized: (size: TerminalSize) => void): void {
    this.#terminal.onData(typed);
    this.#terminal.onResize(() => resized(this.size));
  }

  enter(place: HTMLElement): void {
    const [terminal, styles] = [this.#terminal, getComputedStyle(place)];
    terminal.options.fontFamily = styles.getPropertyValue("--mono");
    // Each time: the window may have turned dark meanwhile.
    terminal.options.theme = { background: styles.backgroundColor, foreground: styles.color, cursor: styles.color, selectionBackground: "#5b8f9966" };
    // It is opened once; after that its element goes from place to place.
    if (terminal.element === undefined) {
      terminal.open(place);
      terminal.textarea?.setAttribute("aria-label", this.#label);
    } else place.append(terminal.element);
    this.#fit.fit();
    terminal.focus();
    this.#resized.observe(place);
  }

  leave(): void {
    this.#resized.disconnect();
    this.#terminal.element?.remove();
  }

  dispose(): void {
    this.#resized.disconnect();
    this.#terminal.dispose();
  }
}
