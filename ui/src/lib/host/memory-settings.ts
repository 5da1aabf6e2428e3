/** Settings, shared folders and trusted certificates of the host in memory, which keep what is done to them. */
import { type DiffLine, HostError, type SettingRow, type SettingsDiff, type SettingsView, type ShareRow, type TrustRow } from "./host";

type Fixed = Omit<SettingRow, "value" | "set">;

const line = (key: string, value: string, description: string, accepts: string): Fixed => ({ key, default: value, description, accepts, field: "line", choices: [] });
const ROWS: Fixed[] = [
  {
    ...line("machine.backend", "auto", "What runs the machine: hardware virtualisation where there is some, else emulation.", '"auto", "kvm" or "emulated"'),
    field: "choice",
    choices: ["auto", "kvm", "emulated"],
  },
  line("machine.cpus", "2", "Virtual CPUs. More than the computer has are cut down to what it has.", "a whole number from 1 to 64"),
  line("machine.memory", "2 GiB", "The machine's memory.", 'a size such as "4 GiB", from 256 MiB to 1 TiB'),
  line("machine.disk", "64 GiB", "Largest size of the data disk. It is sparse: only what is used takes space.", 'a size such as "4 GiB", from 1 GiB to 16 TiB'),
  { ...line("machine.foreign-processors", "false", "Whether programs for other processors run, by emulation.", "true or false"), field: "switch" },
  line("proxy.http", "", "The proxy for plain HTTP.", "a URL"),
  line("proxy.no", "", "What is reached without a proxy.", "names and addresses with commas between"),
  { ...line("engine", "{}", "The engine's own settings, as in its daemon.json.", "a table"), field: "json" },
];
const CPUS = Array.from({ length: 64 }, (_, index) => String(index + 1));
/** What the machine heeds only when it starts. */
const AT_START = /^(machine|engine)/;

export class MemorySettings {
  readonly #set = new Map<string, string>();
  #trusted: TrustRow[] = [
    { fingerprint: "9f8a".repeat(16), subject: "CN=Mara's Company Root,O=Mara Ltd", expires: "2031-05-02T00:00:00Z" },
  ];

  view(): SettingsView {
    const rows = ROWS.map((row) => ({ ...row, value: this.#set.get(row.key) ?? row.default, set: this.#set.has(row.key) }));
    return { file: "/home/mara/.config/cove/settings.toml", rows, problem: null };
  }

  change(values: Record<string, string | null>, shown: string | null): SettingsDiff {
    const after = new Map(this.#set);
    for (const [key, value] of Object.entries(values)) {
      const row = ROWS.find((row) => row.key === key);
      if (row === undefined) throw new HostError(`there is no setting \`${key}\``);
      const taken = row.field === "choice" ? row.choices : key === "machine.cpus" ? CPUS : null;
      if (value !== null && taken?.includes(value) === false) {
        throw new HostError(`\`${key}\` cannot be "${value}"; it takes ${row.accepts}`, "nothing was changed; `cove config get` shows what is in force");
      }
      if (value === null) after.delete(key);
      else after.set(key, value);
    }
    const text = (of: ReadonlyMap<string, string>) => [...of].map(([key, value]) => `${key} = ${value}`);
    const [old, now] = [text(this.#set), text(after)];
    const lines: DiffLine[] = [
      ...old.filter((line) => !now.includes(line)).map((text) => ({ sign: "removed" as const, text })),
      ...now.filter((line) => !old.includes(line)).map((text) => ({ sign: "added" as const, text })),
    ];
    const mark = old.join("\n");
    if (shown !== null) {
      if (shown !== mark) {
        throw new HostError("the settings file was changed meanwhile; it was left as it is", "read the file as it is now, and make the change to that");
      }
      this.#set.clear();
      for (const [key, value] of after) this.#set.set(key, value);
    }
    return { lines, restartNeeded: Object.keys(values).some((key) => AT_START.test(key)) ? ["default"] : [], mark };
  }

  trusted(): TrustRow[] {
    return this.#trusted;
  }

  trust(subject: string): void {
    this.#trusted = [...this.#trusted, { fingerprint: "01ab".repeat(16), subject, expires: "2030-01-01T00:00:00Z" }];
  }

  distrust(fingerprint: string): void {
    this.#trusted = this.#trusted.filter((row) => row.fingerprint !== fingerprint);
  }
}

export function shareRows(shared: ReadonlyMap<string, boolean>): ShareRow[] {
  return [...shared].map(([path, readOnly]) => ({ path, readOnly, missing: null }));
}
