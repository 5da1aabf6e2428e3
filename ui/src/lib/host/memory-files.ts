/** The files of one container or volume of the host in memory: a tree that keeps what is done to it. */
import { type FileChange, type FileRow, HostError, type FilesView, type FileText, type Outside, type Saved } from "./host";

interface Entry {
  kind: "folder" | "file";
  text: string;
  permissions: string;
  owner: string;
  modifiedMs: number;
  change: FileChange | null;
  /** Where a link leads. */
  target: string | null;
}

type Mounted = Outside & { target: string };

const MOUNTS: readonly Mounted[] = [
  { target: "/srv", kind: "host", place: "/home/mara/shop" },
  { target: "/var/lib/data", kind: "volume", place: "shop_data" },
];

export class MemoryFiles {
  running = true;
  readonly #entries = new Map<string, Entry>();
  readonly #mounts: readonly Mounted[];
  /** Whether there is an image to compare with. */
  readonly #image: boolean;
  #now: number;

  private constructor(now: number, image: boolean) {
    [this.#now, this.#image, this.#mounts] = [now, image, image ? MOUNTS : []];
  }

  /** A volume's, with something in it or without. */
  static ofVolume(now: number, filled: boolean): MemoryFiles {
    const made = new MemoryFiles(now, false);
    made.#set("", { kind: "folder", owner: "999:999" });
    if (!filled) return made;
    made.#set("/conf", { kind: "folder", owner: "999:999" });
    made.#set("/conf/shop.conf", { kind: "file", text: "currency = EUR\n", owner: "999:999", permissions: "rw-r-----" });
    made.#set("/orders.db", { kind: "file", text: "7731\n", owner: "999:999" });
    return made;
  }

  static ofContainer(now: number): MemoryFiles {
    const made = new MemoryFiles(now, true);
    const folders = ["", "/bin", "/etc", "/etc/nginx", "/etc/nginx/conf.d", "/home", "/srv", "/tmp", "/usr", "/var", "/var/lib", "/var/lib/data", "/var/log"];
    for (const path of folders) made.#set(path, { kind: "folder", permissions: path === "/tmp" ? "rwxrwxrwt" : "rwxr-xr-x" });
    const files: [string, string, Partial<Entry>][] = [
      ["/bin/busybox", "\u007fELF\0", { permissions: "rwxr-xr-x" }],
      ["/etc/hostname", "shop-web-1\n", {}],
      ["/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnginx:x:101:101:nginx:/var/cache/nginx:/sbin/nologin\n", {}],
      ["/etc/nginx/nginx.conf", "user nginx;\nworker_processes auto;\n\nevents {\n    worker_connections 1024;\n}\n\nhttp {\n    include /etc/nginx/conf.d/*.conf;\n}\n", { change: "changed" }],
      ["/etc/nginx/conf.d/shop.conf", "server {\n    listen 80;\n    root /srv;\n}\n", { change: "added" }],
      ["/etc/nginx/mime.types", "types {\n    text/html html;\n}\n", {}],
      ["/etc/nginx/modules", "", { target: "/usr/lib/nginx/modules", permissions: "rwxrwxrwx" }],
      ["/etc/nginx/scgi_params", "", { change: "deleted" }],
      ["/srv/index.html", "<h1>Shop</h1>\n", { owner: "1000:1000" }],
      ["/var/lib/data/orders.db", "7731\n", { owner: "999:999" }],
      ["/var/log/access.log", "GET / 200\n", { owner: "101:101" }],
    ];
    for (const [path, text, more] of files) made.#set(path, { kind: "file", text, ...more });
    for (const path of ["/etc", "/etc/nginx", "/etc/nginx/conf.d"]) made.#get(path).change = "changed";
    return made;
  }

  at(path: string): FilesView {
    const here = path.replace(/\/+$/, "");
    const entry = this.#get(here);
    if (entry.kind === "file") return { kind: "file", path: here, row: this.#row(here, entry), outside: this.#outside(here) };
    const rows = [...this.#entries]
      .filter(([inner]) => inner !== "" && inner.slice(0, inner.lastIndexOf("/")) === here)
      .map(([inner, found]) => this.#row(inner, found))
      .sort((a, b) => Number(a.kind !== "folder") - Number(b.kind !== "folder") || (a.name < b.name ? -1 : 1));
    return { kind: "folder", path: here || "/", rows, cut: false, running: this.running, outside: this.#outside(here) };
  }

  read(path: string): FileText {
    const { text } = this.#get(path);
    if (text.includes("\0")) throw new HostError("this file is no text", "Download it to open it elsewhere.");
    return { text, revision: this.#revision(path) };
  }

  write(path: string, text: string, revision: string | null): Saved {
    const entry = this.#get(path);
    if (revision !== null && revision !== this.#revision(path)) return { kind: "conflict" };
    entry.text = text;
    entry.modifiedMs = this.#now += 1000;
    entry.change ??= "changed";
    return { kind: "done", revision: this.#revision(path) };
  }

  makeFolder(path: string, name: string): void {
    const made = this.#inside(path, name);
    if (this.#entries.has(made)) throw new HostError(`\`${name}\` is there already`, "Choose another name.");
    this.#set(made, { kind: "folder", change: "added" });
  }

  has(path: string, name: string): boolean {
    const entry = this.#entries.get(this.#inside(path, name));
    return entry !== undefined && entry.change !== "deleted";
  }

  put(path: string, name: string, text: string): void {
    this.#set(this.#inside(path, name), { kind: "file", text, change: "added" });
  }

  rename(path: string, name: string): void {
    this.#mayChange(path);
    const to = this.#inside(path.slice(0, path.lastIndexOf("/")), name);
    if (this.#entries.has(to)) throw new HostError(`cannot rename ${path}: File exists`);
    for (const [inner, entry] of [...this.#entries]) {
      if (inner !== path && !inner.startsWith(`${path}/`)) continue;
      this.#entries.delete(inner);
      this.#entries.set(to + inner.slice(path.length), { ...entry, change: "added" });
    }
  }

  remove(path: string): void {
    this.#mayChange(path);
    for (const inner of [...this.#entries.keys()]) {
      if (inner === path || inner.startsWith(`${path}/`)) this.#entries.delete(inner);
    }
  }

  #outside(path: string): Outside | null {
    const mount = this.#mounts.find(({ target }) => `${path}/`.startsWith(`${target}/`));
    if (mount === undefined) return null;
    const { kind, place, target } = mount;
    return { kind, place: kind === "volume" ? place : place + path.slice(target.length) };
  }

  #mayChange(path: string): void {
    this.#get(path);
    if (!this.running) throw new HostError("files of a container that does not run cannot be renamed or removed", "Start the container first.");
    const mount = this.#mounts.find(({ target }) => `${target}/`.startsWith(`${path}/`));
    if (mount !== undefined) throw new HostError(`${mount.target} is mounted there; what is mounted is not removed or renamed`);
  }

  #inside(path: string, name: string): string {
    if (name === "" || name === "." || name === ".." || name.includes("/")) throw new HostError(`\`${name}\` is not a name for a file`);
    return `${path.replace(/\/+$/, "")}/${name}`;
  }

  #get(path: string): Entry {
    const entry = this.#entries.get(path);
    if (entry === undefined || entry.change === "deleted") throw new HostError(`cannot find ${path}: No such file or directory`);
    return entry;
  }

  #set(path: string, entry: Partial<Entry> & Pick<Entry, "kind">): void {
    const permissions = entry.kind === "folder" ? "rwxr-xr-x" : "rw-r--r--";
    this.#entries.set(path, { text: "", permissions, owner: "0:0", modifiedMs: this.#now - 86_400_000, change: null, target: null, ...entry });
  }

  #revision(path: string): string {
    const entry = this.#get(path);
    return `${entry.modifiedMs}-${entry.text.length}`;
  }

  #row(path: string, entry: Entry): FileRow {
    const gone = entry.change === "deleted";
    return {
      name: path.slice(path.lastIndexOf("/") + 1),
      garbled: false,
      kind: gone ? "special" : entry.target === null ? entry.kind : "folder",
      permissions: gone ? "" : entry.permissions,
      owner: gone ? "" : entry.owner,
      size: entry.text.length,
      modifiedMs: gone ? null : entry.modifiedMs,
      target: entry.target,
      change: this.#image ? entry.change : null,
    };
  }
}
