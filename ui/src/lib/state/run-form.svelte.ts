/** The form that runs a container: free text in the fields, a checked `RunSpec` out of it. */
import { readEnvironment, splitWords, unclosedQuote } from "../command-line";
import type { ContainerRow, Host, Mount, PortBinding, PortObstacle, Publish, Restart, RunSpec, ShareRow } from "../host";
import { say } from "../words/index.svelte";
import { variableProblems } from "./variables";

/** The first one that needs no privilege, and the last. */
const FIRST_PORT = 1024;
const LAST_PORT = 65_535;

function port(text: string | undefined): number | null {
  const number = /^\d{1,5}$/.test(text ?? "") ? Number(text) : 0;
  return number >= 1 && number <= LAST_PORT ? number : null;
}

/** What containers mount of the machine itself: the engine's own socket. */
const SOCKETS: readonly string[] = ["/var/run/docker.sock", "/run/docker.sock"];

/** `8080:80/udp`, or `127.0.0.1:8080:80` at one address; null where it is something else. */
export function readPort(text: string): Publish | null {
  const found = /^(?:(\d{1,3}(?:\.\d{1,3}){3}):)?(\d+):(\d+)(?:\/(tcp|udp|sctp))?$/.exec(text);
  const address = found?.[1] ?? "";
  const [host, container] = [port(found?.[2]), port(found?.[3])];
  if (host === null || container === null || address.split(".").some((part) => Number(part) > 255)) return null;
  return { address, host, container, protocol: (found?.[4] ?? "tcp") as Publish["protocol"] };
}

/** `/folder:/target:ro`; null where it is something else. The last colon before an absolute path divides. */
export function readMount(text: string): Mount | null {
  const found = /^(.+):(\/[^:]*?)(:ro)?$/.exec(text);
  if (found === null) return null;
  return { source: found[1] ?? "", target: found[2] ?? "", readOnly: found[3] !== undefined };
}

/** The most memory in MiB, and the most processors in thousandths, that a form takes: more than any computer has. */
const MOST_MEMORY = 64 * 1024 * 1024;
const MOST_PROCESSORS = 4096 * 1000;

/** `512m` or `1.5g`, in MiB; null where it is something else. */
export function readMemory(text: string): number | null {
  const found = /^(\d+(?:\.\d+)?)\s*(m|g)(?:i?b)?$/i.exec(text);
  const number = Math.round(Number(found?.[1]) * (found?.[2]?.toLowerCase() === "g" ? 1024 : 1));
  return number >= 1 && number <= MOST_MEMORY ? number : null;
}

/** `1.5`, in thousandths; null where it is something else. */
export function readProcessors(text: string): number | null {
  const number = /^\d+(\.\d{1,3})?$/.test(text) ? Math.round(Number(text) * 1000) : 0;
  return number >= 1 && number <= MOST_PROCESSORS ? number : null;
}

/** The first port of this computer from `from` on that is not among those; after the last one it begins anew. */
export function freePort(from: number, taken: ReadonlySet<number>): number {
  let free = from;
  // Where all of them are taken, the engine says so.
  for (let tried = 0; tried <= LAST_PORT && taken.has(free); tried += 1) free = free < LAST_PORT ? free + 1 : FIRST_PORT;
  return free;
}

/** Ports of this computer that containers have. */
function takenPorts(rows: readonly ContainerRow[]): Set<number> {
  return new Set(rows.flatMap((row) => row.ports.flatMap((taken) => taken.host ?? [])));
}

/** Ports of this computer that are asked for more than once, at addresses of which one may hold the other. */
function twice(ports: readonly Publish[]): number[] {
  const meets = (one: Publish, other: Publish) =>
    one.host === other.host && one.protocol === other.protocol && (one.address === other.address || one.address === "" || other.address === "");
  return ports.filter((port, at) => port.host !== 0 && ports.slice(0, at).some((other) => meets(port, other))).map((port) => port.host);
}

/** Whether a container's port leaves no room for another one. */
function isHeld(taken: PortBinding, { address, host, protocol }: Publish): boolean {
  const meet = taken.address === null || address === "" || taken.address === address;
  return meet && taken.host === host && taken.protocol === protocol;
}

/** What tells a port of this computer from others. */
function keyOf({ address, host, protocol }: Publish): string {
  return `${address}:${host}/${protocol}`;
}

/** What keeps a port from being published, in words. */
function obstacleText({ address, host }: Publish, { kind, free }: PortObstacle): string {
  if (kind === "elsewhere") return say("portElsewhere", { address });
  const why = say(kind === "taken" ? "portInUse" : "portDenied", { port: host });
  return free === null ? why : why + say("portInstead", { free });
}

/** What a well-known image is usually run with. */
export interface Preset {
  title: string;
  image: string;
  /** Its name here, and that of its volume. */
  name: string;
  /** Where it listens, and the port of this computer that is tried first. */
  ports: readonly (readonly [host: number, container: number])[];
  environment: string;
  /** Where it keeps its data. */
  data: string | null;
}

export const PRESETS: readonly Preset[] = [
  { title: "nginx", image: "nginx:alpine", name: "nginx", ports: [[8080, 80]], environment: "", data: null },
  { title: "PostgreSQL", image: "postgres:17-alpine", name: "postgres", ports: [[5432, 5432]], environment: "POSTGRES_PASSWORD=postgres", data: "/var/lib/postgresql/data" },
  { title: "MariaDB", image: "mariadb:11", name: "mariadb", ports: [[3306, 3306]], environment: "MARIADB_ROOT_PASSWORD=mariadb", data: "/var/lib/mysql" },
  { title: "Redis", image: "redis:alpine", name: "redis", ports: [[6379, 6379]], environment: "", data: "/data" },
  // It keeps data by its node's name, which would otherwise be the container's id and leave the volume to nobody.
  { title: "RabbitMQ", image: "rabbitmq:4-management", name: "rabbitmq", ports: [[5672, 5672], [15672, 15672]], environment: "RABBITMQ_NODENAME=rabbit@localhost", data: "/var/lib/rabbitmq" },
];

/** All that can be typed or chosen in the form. */
interface Fields {
  image: string;
  name: string;
  command: string;
  environment: string;
  ports: string;
  mounts: string;
  network: string;
  memory: string;
  processors: string;
  restart: Restart;
  remove: boolean;
}

const NOTHING: Fields = {
  image: "",
  name: "",
  command: "",
  environment: "",
  ports: "",
  mounts: "",
  network: "",
  memory: "",
  processors: "",
  restart: "no",
  remove: false,
};

export class RunForm {
  image = $state("");
  name = $state("");
  command = $state("");
  environment = $state("");
  ports = $state("");
  mounts = $state("");
  network = $state("");
  memory = $state("");
  processors = $state("");
  restart = $state<Restart>("no");
  remove = $state(false);
  /** What kept ports from being published when this computer was asked last, by their keys. */
  #obstacles = $state.raw<Readonly<Record<string, PortObstacle>>>({});
  /** How often it was asked: an answer counts only until it is asked again. */
  #asked = 0;

  /** What stood in the form before it was filled in at once; null where nothing did. */
  #before = $state.raw<Fields | null>(null);
  readonly #ports = $derived(this.ports.split(/[\s,]+/).filter(Boolean));
  readonly #mounts = $derived(this.mounts.split("\n").map((line) => line.trim()).filter(Boolean));
  readonly spec = $derived<RunSpec>({
    image: this.image.trim(),
    name: this.name.trim(),
    command: splitWords(this.command),
    environment: readEnvironment(this.environment),
    ports: this.#ports.flatMap((text) => readPort(text) ?? []),
    mounts: this.#mounts.flatMap((text) => readMount(text) ?? []),
    network: this.network,
    memory: readMemory(this.memory.trim()),
    processors: readProcessors(this.processors.trim()),
    // Docker refuses the two together; removing wins, because the form shows it as the later choice.
    restart: this.remove ? "no" : this.restart,
    remove: this.remove,
  });

  /** The lines of folders and volumes that can be read, by their places among all. */
  readonly mounted = $derived(
    this.#mounts.flatMap((text, place) => {
      const mount = readMount(text);
      return mount === null ? [] : [{ place, ...mount }];
    }),
  );

  /** What keeps it from running, while it is typed. */
  problems(rows: readonly ContainerRow[]): string[] {
    const found: string[] = [];
    const taken = takenPorts(rows);
    for (const text of this.#ports) taken.add(readPort(text)?.host ?? 0);
    for (const text of this.#ports) {
      const wanted = readPort(text);
      if (wanted === null) found.push(say("badPort", { text }));
      const owner = wanted === null ? undefined : rows.find((row) => row.ports.some((taken) => isHeld(taken, wanted)));
      if (wanted !== null && owner !== undefined) {
        found.push(say("portTaken", { port: wanted.host, name: owner.name, free: freePort(wanted.host, taken) }));
      }
      const obstacle = wanted === null ? undefined : this.#obstacles[keyOf(wanted)];
      // Of the container that has it more can be told.
      if (wanted !== null && owner === undefined && obstacle !== undefined) found.push(obstacleText(wanted, obstacle));
    }
    for (const text of this.#mounts) if (readMount(text) === null) found.push(say("badMount", { text }));
    for (const port of twice(this.spec.ports)) found.push(say("portTwice", { port }));
    if (unclosedQuote(this.command)) found.push(say("badCommand"));
    found.push(...variableProblems(this.environment));
    const [memory, processors] = [this.memory.trim(), this.processors.trim()];
    if (memory !== "" && readMemory(memory) === null) found.push(say("badMemory", { text: memory }));
    if (processors !== "" && readProcessors(processors) === null) found.push(say("badProcessors", { text: processors }));
    // What is typed twice is wrong once.
    return found.filter((problem, at) => found.indexOf(problem) === at);
  }

  /** Asks this computer whether the ports can be had: programs have some that no container has. */
  async askForPorts(host: Pick<Host, "portsFree">): Promise<void> {
    this.#asked += 1;
    const round = this.#asked;
    const asked = this.spec.ports;
    // Where it cannot be told, the engine tells it when the container is run.
    const found = asked.length === 0 ? [] : await host.portsFree(asked).catch(() => []);
    if (round !== this.#asked) return;
    this.#obstacles = Object.fromEntries(
      asked.flatMap((wanted, at) => {
        const obstacle = found[at] ?? null;
        return obstacle === null ? [] : [[keyOf(wanted), obstacle] as const];
      }),
    );
  }

  /** Folders of this computer that the form mounts and that none of these shares. */
  unshared(shares: readonly ShareRow[]): string[] {
    const within = (source: string, path: string) => `${source}/`.startsWith(path.endsWith("/") ? path : `${path}/`);
    const sources = this.spec.mounts.map(({ source }) => source).filter((source) => source.startsWith("/") && !SOCKETS.includes(source));
    // What is typed twice is told once.
    const once = sources.filter((source, at) => sources.indexOf(source) === at);
    return once.filter((source) => !shares.some(({ path }) => within(source, path)));
  }

  /** A folder that was dropped or chosen, unless it is mounted already: it appears below /mnt by its own name until a person says otherwise. */
  addFolder(path: string, readOnly: boolean): void {
    if (this.spec.mounts.some(({ source }) => source === path)) return;
    const name = path.replace(/\/+$/, "").split("/").pop() || "folder";
    const taken = (target: string) => this.#mounts.some((text) => readMount(text)?.target === target);
    let target = `/mnt/${name}`;
    for (let count = 2; taken(target); count += 1) target = `/mnt/${name}-${count}`;
    this.mounts = [...this.#mounts, `${path}:${target}${readOnly ? ":ro" : ""}`].join("\n");
  }

  /** Whether containers may only read what the line at that place mounts. */
  setReadOnly(place: number, readOnly: boolean): void {
    const marked = (text: string) => `${text.replace(/:ro$/, "")}${readOnly ? ":ro" : ""}`;
    this.mounts = this.#mounts.map((text, at) => (at === place ? marked(text) : text)).join("\n");
  }

  /** Whether something that was typed has been replaced at once, which can be taken back. */
  get replaced(): boolean {
    return this.#before !== null;
  }

  /** Something to begin with: an image that every machine has, writing a line a second. */
  suggest(): void {
    this.#fill({ image: "alpine", name: "hello", command: "sh -c 'while :; do echo \"hello, it is $(date)\"; sleep 1; done'" });
  }

  /** What a well-known image needs, with a name and ports that nobody has yet. */
  take(preset: Preset, rows: readonly ContainerRow[]): void {
    const names = rows.map((row) => row.name);
    let name = preset.name;
    for (let count = 2; names.includes(name); count += 1) name = `${preset.name}-${count}`;
    const taken = takenPorts(rows);
    const ports = preset.ports.map(([host, container]) => {
      const free = freePort(host, taken);
      taken.add(free);
      // Passwords that everybody knows, or none at all, are for this computer alone.
      return `127.0.0.1:${free}:${container}`;
    });
    const mounts = preset.data === null ? "" : `${name}-data:${preset.data}`;
    this.#fill({ image: preset.image, name, environment: preset.environment, ports: ports.join(" "), mounts });
  }

  /** Changes what stands in the form with what stood there before it was filled in; twice changes nothing. */
  undo(): void {
    if (this.#before === null) return;
    const now = this.#fields();
    this.#set(this.#before);
    this.#before = now;
  }

  /** All that stands in the form, for what is typed later to be told from it. */
  get written(): string {
    return JSON.stringify(this.#fields());
  }

  clear(): void {
    this.#set(NOTHING);
    this.#before = null;
  }

  /** Fills in all of the form at once. What a person typed is kept for them to have again. */
  #fill(fields: Partial<Fields>): void {
    const now = this.#fields();
    const blank = (Object.keys(NOTHING) as (keyof Fields)[]).every((field) => now[field] === NOTHING[field]);
    this.#before = blank ? null : now;
    this.#set({ ...NOTHING, ...fields });
  }

  #fields(): Fields {
    const { image, name, command, environment, ports, mounts, network, memory, processors, restart, remove } = this;
    return { image, name, command, environment, ports, mounts, network, memory, processors, restart, remove };
  }

  #set(fields: Fields): void {
    Object.assign(this, fields);
  }
}
