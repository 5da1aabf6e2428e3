/** The host of the desktop application: commands and channels of `src-tauri`. */
import { Channel } from "@tauri-apps/api/core";
import { getCurrentWebview } from "@tauri-apps/api/webview";
import {
  type CheckView,
  type ContainerAction,
  type ContainerRow,
  type Drag,
  type Dropped,
  type Failure,
  type FilesOf,
  type FilesView,
  type FileText,
  type Host,
  type Job,
  type LogLine,
  type MachineLogSource,
  type MachineNews,
  type MachineUsage,
  type MachineView,
  type Missed,
  type MountRow,
  type NewMachine,
  type PortObstacle,
  type ProcessTable,
  type Publish,
  type Reclaimed,
  type Removal,
  type RunSpec,
  type Saved,
  type SettingsDiff,
  type SettingsView,
  type ShareRow,
  type Step,
  type Stop,
  type TerminalLink,
  type TerminalSeen,
  type TerminalSize,
  type TrustRow,
  type Upload,
  type Usage,
} from "./host";
import { inTurn } from "./in-turn";
import { call, longCall, send, watch, watchBatches } from "./tauri-call";
import { TauriThings } from "./tauri-things";

/** Bytes of a terminal that are acknowledged together. */
const ACKNOWLEDGE = 64 * 1024;

/** Opens a shell by a command, and carries its bytes. */
async function openShell(
  command: string,
  values: Record<string, unknown>,
  seen: TerminalSeen,
  ended: (began: boolean) => void,
): Promise<TerminalLink> {
  let owed = 0;
  let open = true;
  const channel = new Channel<ArrayBuffer | { began: boolean }>((message) => {
    if (!open) return;
    if (!(message instanceof ArrayBuffer)) return ended(message.began);
    void seen(new Uint8Array(message)).then(async () => {
      owed += message.byteLength;
      if (owed < ACKNOWLEDGE || !open) return;
      const amount = owed;
      owed = 0;
      void send("taken", { number: await number, amount });
    });
  });
  const number = call<number>(command, { ...values, seen: channel });
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

export class TauriHost extends TauriThings implements Host {
  watchMachine(seen: (news: MachineNews) => void): Stop {
    return watch<MachineNews>("watch_machine", {}, (news) => seen(news));
  }

  startMachine(step: (step: Step) => void): Promise<void> {
    return call("start_machine", { steps: new Channel<Step>(step) });
  }

  stopMachine(step: (step: Step) => void): Promise<void> {
    return call("stop_machine", { steps: new Channel<Step>(step) });
  }

  restartMachine(step: (step: Step) => void): Promise<void> {
    return call("restart_machine", { steps: new Channel<Step>(step) });
  }

  checks(): Promise<CheckView[]> {
    return call("checks");
  }

  diagnostics(): Promise<string> {
    return call("diagnostics");
  }

  machineUsage(): Promise<MachineUsage> {
    return call("machine_usage");
  }

  reclaimDisk(): Promise<Reclaimed> {
    return call("reclaim_disk");
  }

  machines(): Promise<MachineView[]> {
    return call("machines");
  }

  chooseMachine(name: string): Promise<void> {
    return call("choose_machine", { name });
  }

  createMachine(machine: NewMachine): Promise<void> {
    return call("create_machine", { ...machine });
  }

  deleteMachine(name: string, confirm: string): Promise<void> {
    return call("delete_machine", { name, confirm });
  }

  watchContainers(seen: (rows: ContainerRow[]) => void): Stop {
    return watch<ContainerRow[]>("watch_containers", {}, (rows) => seen(rows));
  }

  watchEngine(seen: (why: Failure | null) => void): Stop {
    return watch<Failure | null>("watch_engine", {}, (why) => seen(why));
  }

  watchUsage(seen: (usage: ReadonlyMap<string, Usage>) => void, of?: string): Stop {
    return watch<Record<string, Usage>>("watch_usage", { of }, (usage) => seen(new Map(Object.entries(usage))));
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
    return watchBatches("follow_log", { id }, seen);
  }

  saveText(name: string, text: string): Promise<string | null> {
    return call("save_text", { name, text });
  }

  openTerminal(id: string, size: TerminalSize, seen: TerminalSeen, ended: (began: boolean) => void): Promise<TerminalLink> {
    return openShell("open_terminal", { id, ...size }, seen, ended);
  }

  openDebugShell(id: string, size: TerminalSize, seen: TerminalSeen, ended: (began: boolean) => void): Promise<TerminalLink> {
    return openShell("open_debug_shell", { id, ...size }, seen, ended);
  }

  run(spec: RunSpec, job: Job): Promise<string> {
    return longCall("run", { spec }, job);
  }

  portsFree(ports: Publish[]): Promise<(PortObstacle | null)[]> {
    return call("ports_free", { ports });
  }

  waitForPage(id: string, port: number, job: Job): Promise<number> {
    return longCall("wait_for_page", { id, port }, job);
  }

  openPort(port: number, address: string | null): Promise<void> {
    return call("open_port", { port, address });
  }

  watchTray(seen: (missed: Missed) => void): Stop {
    return watch<Missed>("watch_tray", {}, (missed) => seen(missed));
  }

  watchDrags(seen: (drag: Drag) => void): Stop {
    const listening = getCurrentWebview().onDragDropEvent(({ payload }) => {
      if (payload.type === "drop") seen({ kind: "dropped", paths: payload.paths });
      else if (payload.type === "leave") seen({ kind: "off" });
      else if (payload.type === "enter") seen({ kind: "over" });
    });
    return () => void listening.then((stop) => stop());
  }

  watchClosing(asked: () => void): Stop {
    return watch<null>("watch_closing", {}, () => asked());
  }

  answerClosing(closes: boolean): Promise<void> {
    return call("answer_closing", { closes });
  }

  lookAt(path: string): Promise<Dropped> {
    return call("look_at", { path });
  }

  shareFolder(path: string, readOnly: boolean): Promise<void> {
    return call("share_folder", { path, readOnly });
  }

  autostart(): Promise<boolean | null> {
    return call("autostart");
  }

  setAutostart(on: boolean): Promise<void> {
    return call("set_autostart", { on });
  }

  settings(): Promise<SettingsView> {
    return call("settings");
  }

  changeSettings(values: Record<string, string | null>, shown: string | null): Promise<SettingsDiff> {
    return call("change_settings", { values, shown });
  }

  shares(): Promise<ShareRow[]> {
    return call("shares");
  }

  shareChosen(readOnly: boolean): Promise<boolean> {
    return call("share_chosen", { readOnly });
  }

  unshare(path: string): Promise<void> {
    return call("unshare", { path });
  }

  trusted(): Promise<TrustRow[]> {
    return call("trusted");
  }

  trustChosen(): Promise<boolean> {
    return call("trust_chosen");
  }

  distrust(fingerprint: string): Promise<void> {
    return call("distrust", { fingerprint });
  }

  openMachineShell(size: TerminalSize, seen: TerminalSeen, ended: (began: boolean) => void): Promise<TerminalLink> {
    return openShell("open_machine_shell", { ...size }, seen, ended);
  }

  followMachineLog(source: MachineLogSource, seen: (lines: LogLine[]) => void): Stop {
    return watchBatches("follow_machine_log", { source }, seen);
  }

  removals(ids: string[]): Promise<Removal[]> {
    return call("removals", { ids });
  }

  renameContainer(id: string, name: string): Promise<void> {
    return call("rename_container", { id, name });
  }

  commitContainer(id: string, reference: string, comment: string): Promise<void> {
    return call("commit_container", { id, reference, comment });
  }

  runLine(id: string): Promise<string> {
    return call("run_line", { id });
  }

  filesAt(of: FilesOf, path: string): Promise<FilesView> {
    return call("files_at", { of, path });
  }

  readFile(of: FilesOf, path: string): Promise<FileText> {
    return call("read_file", { of, path });
  }

  writeFile(of: FilesOf, path: string, text: string, revision: string | null): Promise<Saved> {
    return call("write_file", { of, path, text, revision });
  }

  makeFolder(of: FilesOf, path: string, name: string): Promise<void> {
    return call("make_folder", { of, path, name });
  }

  renameFile(of: FilesOf, path: string, name: string): Promise<void> {
    return call("rename_file", { of, path, name });
  }

  removeFile(of: FilesOf, path: string, job: Job): Promise<void> {
    return longCall("remove_file", { of, path }, job);
  }

  downloadFile(of: FilesOf, path: string, folder: boolean, job: Job): Promise<string | null> {
    return longCall("download_file", { of, path, folder }, job);
  }

  chooseFiles(): Promise<string[]> {
    return call("choose_files");
  }

  sendFiles(of: FilesOf, folder: string, paths: string[], replace: string[], job: Job): Promise<Upload> {
    return longCall("send_files", { of, folder, paths, replace }, job);
  }
}
