/**
 * The container whose page welcomes a person: started on the first press, found on later ones.
 *
 *           run, or start one that is stopped                the page answers
 *   (press) ─────────────────────────────────▶ a task ───────────────────────────▶ the browser shows it
 *      └── it runs ────────────────────────────────────────────────────────────────────▶┘
 */
import { quote, runCommand } from "../command-line";
import type { Host, RunSpec } from "../host";
import { language, say } from "../words/index.svelte";
import { actionsFor, type Containers } from "./containers.svelte";
import type { Tasks } from "./tasks.svelte";

/** By its name it is found again. */
const NAME = "cove-welcome-page";
/** Where it listens. */
const PORT = 80;

/** Serves with what busybox has. The shell, which ends when it is asked to, spares a person the wait for a stop. */
const SERVE = `trap "exit 0" TERM; nc -lk -p ${PORT} -e sh -c "$1" & wait`;

/**
 * One HTTP request on standard input, the page on standard output. The head is read to its end, since to close a
 * connection that still holds unread bytes resets it before the answer arrives. The words of the page stand in double
 * quotes, where the shell fills in what is behind a dollar.
 */
function answer(): string {
  const facts = { name: "<code>$(hostname)</code>", system: "$PRETTY_NAME", kernel: "$(uname -sr)" };
  const style = "html{color-scheme:light dark}body{font:18px/1.6 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem}h1{font-weight:600}";
  const page =
    `<!doctype html><html lang=${language}><meta charset=utf-8><title>${say("welcomeTitle")}</title><style>${style}</style>` +
    `<h1>${say("welcomeTitle")}</h1><p>${say("welcomeFrom", facts)}</p><p>${say("welcomeHow")}</p>`;
  return [
    "while read -r line && [ ${#line} -gt 1 ]; do :; done",
    ". /etc/os-release",
    `page="${page}"`,
    String.raw`printf "HTTP/1.0 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n" "$(printf "%s\n" "$page" | wc -c)" "$page"`,
  ].join("; ");
}

/** What is run: on a free port that only this computer reaches. */
export function welcomeSpec(): RunSpec {
  return {
    image: "alpine",
    name: NAME,
    command: ["sh", "-c", SERVE, "welcome", answer()],
    environment: [],
    ports: [{ address: "127.0.0.1", host: 0, container: PORT, protocol: "tcp" }],
    mounts: [],
    network: "",
    memory: null,
    processors: null,
    restart: "no",
    remove: false,
  };
}

export class Welcome {
  /** Whether the page is on its way. */
  busy = $state(false);

  constructor(
    readonly host: Host,
    readonly tasks: Tasks,
    readonly containers: Containers,
  ) {}

  /** Opens the page in the browser, and runs its container before where it does not run. */
  async open(): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    try {
      const port = await this.#port();
      if (port !== null) await this.containers.openPort(port);
    } finally {
      this.busy = false;
    }
  }

  /** Where the page is; null where it did not come to that, which the task tells. */
  async #port(): Promise<number | null> {
    const row = this.containers.rows?.find((row) => row.name === NAME);
    const published = row?.ports.find((port) => port.container === PORT && port.protocol === "tcp")?.host ?? null;
    if (row?.state === "running" && published !== null) return published;
    const spec = welcomeSpec();
    const again = row === undefined ? undefined : (["start", "unpause"] as const).find((action) => actionsFor(row).includes(action));
    const command = again === undefined ? runCommand(spec) : `docker ${again} ${quote(NAME)}`;
    const { ended } = this.tasks.begin({ title: say("welcome"), command }, async (job) => {
      const id = row === undefined || again === undefined ? await this.host.run(spec, job) : await this.#again(again, row.id);
      return this.host.waitForPage(id, PORT, job);
    });
    const outcome = await ended;
    return outcome.kind === "done" ? outcome.value : null;
  }

  async #again(action: "start" | "unpause", id: string): Promise<string> {
    await this.host.act(action, id);
    return id;
  }
}
