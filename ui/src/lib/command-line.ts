/** The command line that does what the form does. */
import type { BuildSpec, ComposeAction, ProjectRow, RunSpec, Variable } from "./host";

/** A control character, or what `$'…'` would not take as it is. */
const SPECIAL = /['\\]|\p{Cc}/gu;

function special(letter: string): string {
  if (letter === "'" || letter === "\\") return `\\${letter}`;
  return [...new TextEncoder().encode(letter)].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
}

/**
 * A word as a POSIX shell reads it back unchanged. What a terminal would act upon when it is pasted, all control
 * characters but the end of a line, is written in numbers; `cove_view::run_line` does likewise.
 */
export function quote(word: string): string {
  if (/^[\w@%+=:,./-]+$/.test(word)) return word;
  return /[^\P{Cc}\n]/u.test(word) ? `$'${word.replace(SPECIAL, special)}'` : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** `docker run …`, in one line. */
export function runCommand(spec: RunSpec): string {
  const words = ["docker", "run", "--detach"];
  if (spec.remove) words.push("--rm");
  if (spec.name !== "") words.push("--name", spec.name);
  if (spec.restart !== "no") words.push("--restart", spec.restart);
  if (spec.network !== "") words.push("--network", spec.network);
  if (spec.memory !== null) words.push("--memory", `${spec.memory}m`);
  if (spec.processors !== null) words.push("--cpus", String(spec.processors / 1000));
  for (const { address, host, container, protocol } of spec.ports) {
    const at = `${address === "" ? "" : `${address}:`}${host === 0 ? "" : host}`;
    words.push("--publish", `${at === "" ? "" : `${at}:`}${container}${protocol === "tcp" ? "" : `/${protocol}`}`);
  }
  for (const mount of spec.mounts) words.push("--mount", mountOption(mount));
  for (const { name, value } of spec.environment) words.push("--env", `${name}=${value}`);
  words.push(spec.image || "IMAGE", ...spec.command);
  return words.map(quote).join(" ");
}

/** What makes a debug shell for a container: one beside it, which sees its processes and its network. */
export function debugCommand(name: string): string {
  const shared = `container:${name}`;
  const words = ["docker", "run", "--rm", "--interactive", "--tty", "--pid", shared, "--network", shared, "--cap-add", "SYS_PTRACE", "alpine", "sh"];
  return words.map(quote).join(" ");
}

/** What tells in a terminal what a view of a container shows; empty where no one command does. */
export function viewCommand(view: string, name: string): string {
  const words: Record<string, string> = {
    logs: "logs --follow",
    terminal: "exec --interactive --tty",
    stats: "stats",
    processes: "top",
    mounts: "inspect",
    inspect: "inspect",
  };
  const found = words[view];
  return found === undefined ? "" : `docker ${found} ${quote(name)}${view === "terminal" ? " sh" : ""}`;
}

/** `--mount` and not `--volume`: a path may hold colons. Its fields are CSV, so a field with a comma is quoted. */
function mountOption(mount: RunSpec["mounts"][number]): string {
  const kind = mount.source.startsWith("/") ? "bind" : "volume";
  const fields = [`type=${kind}`, `source=${mount.source}`, `target=${mount.target}`];
  if (mount.readOnly) fields.push("readonly");
  return fields.map((field) => (/[",\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field)).join(",");
}

/** A line of a `.env`. The engine takes every name without a space. */
const VARIABLE = /^\s*(?:export\s+)?([^\s=#][^\s=]*)=(.*)$/;

/** The variables of a pasted `.env`: comments and blank lines are passed over, quotes around a value are taken off. */
export function readEnvironment(text: string): Variable[] {
  return text.split(/\r?\n/).flatMap((line) => {
    const found = VARIABLE.exec(line);
    if (found === null) return [];
    const raw = (found[2] ?? "").trim();
    const quoted = /^(["'])(.*)\1$/.exec(raw);
    return [{ name: found[1] ?? "", value: quoted?.[2] ?? raw }];
  });
}

/** Lines that are neither variables nor comments, such as the second one of a value that has two. */
export function unreadVariables(text: string): string[] {
  return text.split(/\r?\n/).filter((line) => !/^\s*(?:#|$)/.test(line) && !VARIABLE.test(line));
}

/** Words as a shell would split them; quotes group, nothing is expanded. */
export function splitWords(text: string): string[] {
  const words: string[] = [];
  const pattern = /((?:[^\s"']|"[^"]*"|'[^']*')+)/g;
  for (const found of text.matchAll(pattern)) {
    words.push(found[0].replace(/"([^"]*)"|'([^']*)'/g, (_, double?: string, single?: string) => double ?? single ?? ""));
  }
  return words;
}

/** Whether a quote is opened in it that nothing closes. */
export function unclosedQuote(text: string): boolean {
  return /["']/.test(text.replace(/"[^"]*"|'[^']*'/g, ""));
}

/** `docker build …`, in one line. A Dockerfile's path is relative to the working directory there, and not to the folder. */
export function buildCommand(spec: BuildSpec): string {
  const words = ["docker", "build"];
  const say = (option: string, value: string) => {
    if (value !== "") words.push(option, value);
  };
  const folder = spec.folder || "FOLDER";
  say("--tag", spec.tag);
  say("--file", spec.dockerfile === "" || spec.dockerfile.startsWith("/") ? spec.dockerfile : `${folder.replace(/\/+$/, "")}/${spec.dockerfile}`);
  say("--target", spec.target);
  say("--platform", spec.platforms.join(","));
  for (const { name, value } of spec.args) say("--build-arg", `${name}=${value}`);
  words.push(folder);
  return words.map(quote).join(" ");
}

/**
 * `docker compose …`, in one line, by the rule of `ProjectRow::words`; how compose writes is left out. What only concerns
 * containers goes by the project's name, and so does `down` where the folder is not known.
 */
export function composeCommand(project: Pick<ProjectRow, "name" | "folder" | "files">, action: ComposeAction): string {
  const { name, folder, files } = project;
  const words = ["docker", "compose", `--project-name=${name}`];
  if (action === "up" || (action === "down" && folder !== null)) {
    if (folder !== null && files.length > 0) words.push(`--project-directory=${folder}`);
    words.push(...files.map((file) => `--file=${file}`));
  }
  words.push(...(action === "up" ? ["up", "--detach"] : [action]));
  return words.map(quote).join(" ");
}

/** The command as it is for the machine that the window shows; there is one that needs no naming. */
export function ofMachine(command: string, machine: { name: string } | null): string {
  return machine === null || machine.name === "default" ? command : `${command} --machine ${machine.name}`;
}
