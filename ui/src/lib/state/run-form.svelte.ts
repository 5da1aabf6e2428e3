/** The form that runs a container: free text in the fields, a checked `RunSpec` out of it. */
import { readEnvironment, splitWords } from "../command-line";
import type { ContainerRow, Mount, Publish, Restart, RunSpec } from "../host";
import { say } from "../words/index.svelte";

function port(text: string | undefined): number | null {
  const number = /^\d{1,5}$/.test(text ?? "") ? Number(text) : 0;
  return number >= 1 && number <= 65_535 ? number : null;
}

/** `8080:80/udp`; null where it is something else. */
export function readPort(text: string): Publish | null {
  const found = /^(\d+):(\d+)(?:\/(tcp|udp|sctp))?$/.exec(text);
  const [host, container] = [port(found?.[1]), port(found?.[2])];
  if (host === null || container === null) return null;
  return { host, container, protocol: (found?.[3] ?? "tcp") as Publish["protocol"] };
}

/** `/folder:/target:ro`; null where it is something else. The last colon before an absolute path divides. */
export function readMount(text: string): Mount | null {
  const found = /^(.+):(\/[^:]*?)(:ro)?$/.exec(text);
  if (found === null) return null;
  return { source: found[1] ?? "", target: found[2] ?? "", readOnly: found[3] !== undefined };
}

export class RunForm {
  image = $state("");
  name = $state("");
  command = $state("");
  environment = $state("");
  ports = $state("");
  mounts = $state("");
  restart = $state<Restart>("no");
  remove = $state(false);

  readonly #ports = $derived(this.ports.split(/[\s,]+/).filter(Boolean));
  readonly #mounts = $derived(this.mounts.split("\n").map((line) => line.trim()).filter(Boolean));
  readonly spec = $derived<RunSpec>({
    image: this.image.trim(),
    name: this.name.trim(),
    command: splitWords(this.command),
    environment: readEnvironment(this.environment),
    ports: this.#ports.flatMap((text) => readPort(text) ?? []),
    mounts: this.#mounts.flatMap((text) => readMount(text) ?? []),
    // Docker refuses the two together; removing wins, because the form shows it as the later choice.
    restart: this.remove ? "no" : this.restart,
    remove: this.remove,
  });

  /** What keeps it from running, while it is typed. */
  problems(rows: readonly ContainerRow[]): string[] {
    const found: string[] = [];
    for (const text of this.#ports) {
      const wanted = readPort(text);
      if (wanted === null) found.push(say("badPort", { text }));
      const owner = rows.find((row) =>
        row.ports.some((taken) => taken.host === wanted?.host && taken.protocol === wanted?.protocol),
      );
      if (wanted !== null && owner !== undefined) found.push(say("portTaken", { port: wanted.host, name: owner.name }));
    }
    for (const text of this.#mounts) if (readMount(text) === null) found.push(say("badMount", { text }));
    return found;
  }

  /** A folder that was dropped: it appears below /mnt by its own name until a person says otherwise. */
  addFolder(path: string, readOnly: boolean): void {
    const name = path.replace(/\/+$/, "").split("/").pop() || "folder";
    const taken = (target: string) => this.#mounts.some((text) => readMount(text)?.target === target);
    let target = `/mnt/${name}`;
    for (let count = 2; taken(target); count += 1) target = `/mnt/${name}-${count}`;
    this.mounts = [...this.#mounts, `${path}:${target}${readOnly ? ":ro" : ""}`].join("\n");
  }

  /** Something to begin with: an image that every machine has, writing a line a second. */
  suggest(): void {
    this.image = "alpine";
    this.name = "hello";
    this.command = "sh -c 'while :; do echo \"hello, it is $(date)\"; sleep 1; done'";
  }

  clear(): void {
    [this.image, this.name, this.command, this.environment, this.ports, this.mounts] = ["", "", "", "", "", ""];
    [this.restart, this.remove] = ["no", false];
  }
}
