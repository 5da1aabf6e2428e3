/** The host of the desktop application: commands and channels of `src-tauri`. */
import { Channel, invoke } from "@tauri-apps/api/core";
import { getCurrentWebview } from "@tauri-apps/api/webview";
import {
  type CheckView,
  type ContainerAction,
  type ContainerRow,
  type Drag,
  type Dropped,
  type Host,
  HostError,
  type ImageRow,
  type LogLine,
  type MachineNews,
  type MountRow,
  type NetworkRow,
  type ProcessTable,
  type RunSpec,
  type Step,
  type Stop,
  type TerminalLink,
  type TerminalSize,
  type Usage,
  type VolumeRow,
} from "./host";
import { inTurn } from "./in-turn";

/** Bytes of a terminal that are acknowledged together. */
const ACKNOWLEDGE = 64 * 1024;

async function call<T>(command: string, values: Record<string, unknown> = {}): Promise<T> {
  try {
    return await invoke<T>(command, values);
  } catch (error) {
    throw refusal(error);
  }
}

/** Commands refuse with `{message, hint}`; what the shell itself refuses is a text. */
function refusal(error: unknown): HostError {
  if (typeof error === "object" && error !== null && "message" in error) {
    return new HostError(String(error.message), "hint" in error ? String(error.hint) : "");
  }
  return new HostError(String(error));
}

/** A call whose failure is told by what the window shows next. */
async function send(command: string, values: Record<string, unknown>): Promise<void> {
  await call(command, values).catch((error: unknown) => console.warn(command, error));
}

/** Starts a stream; `seen` gets each message and the stream's number, once that is known. */
function watch<T>(command: string, values: Record<string, unknown>, seen: (message: T, number: Promise<number>) => void): Stop {
  let wanted = true;
  const channel = new Channel<T>((message) => {
    if (wanted) seen(message, number);
  });
  const number = call<number>(command, { ...values, seen: channel });
  number.catch((error: unknown) => console.warn(command, error));
  return () => {
    if (!wanted) return;
    wanted = false;
    void number.then((number) => send("unwatch", { number }), () => undefined);
  };
}

export class TauriHost implements Host {
  watchMachine(seen: (news: MachineNews) => void): Stop {
    return watch<MachineNews>("watch_machine", {}, (news) => seen(news));
  }

  startMachine(step: (step: Step) => void): Promise<void> {
    return call("start_machine", { steps: new Channel<Step>(step) });
  }

  stopMachine(): Promise<void> {
    return call("stop_machine");
  }

  checks(): Promise<CheckView[]> {
    return call("checks");
  }

  watchContainers(seen: (rows: ContainerRow[]) => void): Stop {
    return watch<ContainerRow[]>("watch_containers", {}, (rows) => seen(rows));
  }

  watchUsage(seen: (usage: ReadonlyMap<string, Usage>) => void): Stop {
    return watch<Record<string, Usage>>("watch_usage", {}, (usage) => seen(new Map(Object.entries(usage))));
  }

  act(action: ContainerAction, id: string): Promise<void> {
    return call("act", { action, id });
  }

  inspect(id: string): Promise<unknown> {
    return call("inspect", { id });
  }

  mounts(id: string): Promise<MountRow[]> {
    return call("mounts", { id });
  }

  processes(id: string): Promise<ProcessTable> {
    return call("processes", { id });
  }

  followLog(id: string, seen: (lines: LogLine[]) => void): Stop {
    return watch<LogLine[]>("follow_log", { id }, (lines, number) => {
      seen(lines);
      void number.then((number) => send("taken", { number, amount: 1 }), () => undefined);
    });
  }

  async openTerminal(
    id: string,
    size: TerminalSize,
    seen: (bytes: Uint8Array) => Promise<void>,
    ended: () => void,
  ): Promise<TerminalLink> {
    let owed = 0;
    let open = true;
    const channel = new Channel<ArrayBuffer>((message) => {
      if (!open) return;
      if (message.byteLength === 0) return ended();
      void seen(new Uint8Array(message)).then(async () => {
        owed += message.byteLength;
        if (owed < ACKNOWLEDGE || !open) return;
        const amount = owed;
        owed = 0;
        void send("taken", { number: await number, amount });
      });
    });
    const number = call<number>("open_terminal", { id, columns: size.columns, rows: size.rows, seen: channel });
    const known = await number;
    return {
      type: inTurn((waiting, text) => waiting + text, (text) => send("type_in_terminal", { number: known, text })),
      resize: inTurn((_, size) => size, ({ columns, rows }) => send("resize_terminal", { number: known, columns, rows })),
      close: () => {
        if (open) void send("close_terminal", { number: known });
        open = false;
      },
    };
  }

  run(spec: RunSpec, step: (step: Step) => void): Promise<string> {
    return call("run", { spec, steps: new Channel<Step>(step) });
  }

  openPort(port: number): Promise<void> {
    return call("open_port", { port });
  }

  images(): Promise<ImageRow[]> {
    return call("images");
  }

  volumes(): Promise<VolumeRow[]> {
    return call("volumes");
  }

  networks(): Promise<NetworkRow[]> {
    return call("networks");
  }

  watchDrags(seen: (drag: Drag) => void): Stop {
    const listening = getCurrentWebview().onDragDropEvent(({ payload }) => {
      if (payload.type === "drop") seen({ kind: "dropped", paths: payload.paths });
      else if (payload.type === "leave") seen({ kind: "off" });
      else if (payload.type === "enter") seen({ kind: "over" });
    });
    return () => void listening.then((stop) => stop());
  }

  lookAt(path: string): Promise<Dropped> {
    return call("look_at", { path });
  }

  shareFolder(path: string, readOnly: boolean): Promise<void> {
    return call("share_folder", { path, readOnly });
  }
}
