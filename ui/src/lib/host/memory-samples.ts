/** What the host in memory shows: containers, lines of a log, a shell. All of it follows from numbers. */
import type { ContainerRow, ContainerState, LogLine, PortBinding, TerminalLink, TerminalSeen } from "./host";

/** A fixed present: 1 March 2026, 12:00 UTC. */
export const NOW = Date.UTC(2026, 2, 1, 12);
const STACK: readonly { service: string; image: string; port?: number }[] = [
  { service: "web", image: "nginx:1.29-alpine", port: 80 },
  { service: "api", image: "shop/api:dev", port: 3000 },
  { service: "db", image: "postgres:17", port: 5432 },
  { service: "cache", image: "redis:8-alpine", port: 6379 },
  { service: "worker", image: "shop/worker:dev" },
];
const PROJECTS = ["shop", "blog", "metrics"];

export function sampleRow(index: number): ContainerRow {
  const id = (index + 1).toString(16).padStart(4, "0").repeat(16);
  const createdMs = NOW - (index + 1) * 37 * 60_000;
  const part = STACK[index % STACK.length];
  const alone = index % 7 === 6 || part === undefined;
  if (alone) {
    const ended = index % 2 === 0;
    return {
      id,
      name: `scratch-${index}`,
      image: "alpine:3.23",
      project: null,
      service: null,
      state: ended ? "exited" : "running",
      health: null,
      status: ended ? "Exited (1) 12 minutes ago" : "Up 37 minutes",
      createdMs,
      ports: [],
    };
  }
  const round = Math.floor(index / 15);
  const project = (PROJECTS[Math.floor(index / 5) % 3] ?? "shop") + (round > 0 ? `-${round}` : "");
  const port: PortBinding[] =
    part.port === undefined ? [] : [{ container: part.port, host: 8000 + index, address: null, protocol: "tcp" }];
  const state: ContainerState = index % 11 === 4 ? "restarting" : index % 13 === 9 ? "paused" : "running";
  const up = `Up ${(index % 9) + 2} hours`;
  return {
    id,
    name: `${project}-${part.service}-1`,
    image: part.image,
    project,
    service: part.service,
    state,
    health: part.service === "db" ? "healthy" : part.service === "api" && index > 5 ? "unhealthy" : null,
    status: state === "restarting" ? "Restarting (137) 4 seconds ago" : `${up}${state === "paused" ? " (Paused)" : ""}`,
    createdMs,
    ports: port,
  };
}

export function sampleLine(index: number): LogLine {
  const words = [
    "GET /api/products?page=2 200 14ms",
    "INFO  cache: 128 keys warmed",
    "GET /healthz 200 1ms",
    "WARN  pool: waited 412 ms for a connection",
    'POST /api/orders 201 38ms user="mara"',
    "\u001b[31mERROR\u001b[0m order 7731: payment provider did not answer in 5 s",
    "DEBUG query took 3.1 ms: select id, name from products",
  ];
  const text = words[index % words.length] ?? "";
  return {
    atMs: NOW - 3_600_000 + index * 9,
    stream: text.includes("ERROR") ? "stderr" : "stdout",
    text: `${text} #${index}`,
  };
}

/** What the shell of a container asks with. */
export function promptOf(name: string): string {
  return `\u001b[1;36m${name}\u001b[0m:/# `;
}

/** A shell that says what is typed, and ends by `exit`. */
export function sampleShell(prompt: string, seen: TerminalSeen, ended: (began: boolean) => void): TerminalLink {
  const say = (text: string) => void seen(new TextEncoder().encode(text));
  let line = "";
  setTimeout(() => say(prompt), 0);
  return {
    type: (text) => {
      for (const key of text) {
        if (key !== "\r") {
          line += key;
          say(key);
          continue;
        }
        if (line === "exit") return ended(true);
        say(`\r\n${line.replace(/^echo /, "")}\r\n${prompt}`);
        line = "";
      }
    },
    resize: () => undefined,
    close: () => undefined,
  };
}
