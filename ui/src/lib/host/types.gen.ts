// Made from crates/cove-view. Do not edit: COVE_UPDATE_TYPES=1 cargo test -p cove-view

export type CheckView = { 
/**
 * What was looked at.
 */
name: string, 
/**
 * `ok`, `warning` or `failed`.
 */
state: "ok" | "warning" | "failed", 
/**
 * What was seen.
 */
evidence: string, 
/**
 * What to do about it; empty when nothing.
 */
fix: string, };

export type ContainerRow = { 
/**
 * Its full id.
 */
id: string, 
/**
 * Its first name, without the engine's leading slash.
 */
name: string, 
/**
 * What it was made from, as it was named then.
 */
image: string, 
/**
 * The compose project that it belongs to.
 */
project: string | null, 
/**
 * Its service in that project.
 */
service: string | null, 
/**
 * What it is doing.
 */
state: ContainerState, 
/**
 * What its health check says; absent without one.
 */
health: Health | null, 
/**
 * The engine's own words, such as `Exited (1) 3 minutes ago`.
 */
status: string, 
/**
 * When it was created.
 */
createdMs: number, 
/**
 * Ports that it offers, published ones first, each once.
 */
ports: Array<PortBinding>, };

export type ContainerState = "created" | "running" | "paused" | "restarting" | "removing" | "exited" | "dead";

export type Dropped = { 
/**
 * Its absolute path.
 */
path: string, 
/**
 * Its name.
 */
name: string, 
/**
 * Whether it is a folder.
 */
folder: boolean, 
/**
 * Whether it holds a Dockerfile.
 */
dockerfile: boolean, 
/**
 * The compose file that it holds.
 */
compose: string | null, 
/**
 * Whether containers may mount it.
 */
shared: Sharing, };

export type Failure = { 
/**
 * What happened and why.
 */
message: string, 
/**
 * What to do next; empty when there is nothing sensible to say.
 */
hint: string, };

export type Health = "starting" | "healthy" | "unhealthy";

export type ImageRow = { 
/**
 * Its digest, `sha256:…`.
 */
id: string, 
/**
 * Its names with tags; empty for one that nothing names any more.
 */
tags: Array<string>, 
/**
 * Bytes of all its layers.
 */
size: number, 
/**
 * When it was made.
 */
createdMs: number, 
/**
 * How many containers were made from it.
 */
containers: number, };

export type LogLine = { 
/**
 * When the engine received it; zero where the engine did not say.
 */
atMs: number, 
/**
 * Where it was written to.
 */
stream: LogStream, 
/**
 * Its text, with the escape sequences that it came with, without its end.
 */
text: string, };

export type LogStream = "stdout" | "stderr";

export type MachineNews = { "kind": "seen", 
/**
 * How it is.
 */
machine: MachineView, } | { "kind": "away", 
/**
 * Why not, and what to do.
 */
failure: Failure, };

export type MachinePhase = "stopped" | "starting" | "running" | "paused" | "stopping" | "failed";

export type MachineView = { 
/**
 * Its name.
 */
name: string, 
/**
 * What it is doing.
 */
phase: MachinePhase, 
/**
 * The stage of a start, in words.
 */
stage: string | null, 
/**
 * Why it failed, and what to do.
 */
failure: Failure | null, 
/**
 * Last lines of its console, where they explain the failure.
 */
consoleTail: Array<string>, 
/**
 * `kvm`, `emulated`, `vz` or `hyperv`.
 */
backend: string, 
/**
 * Why this backend.
 */
backendReason: string, 
/**
 * The value for `DOCKER_HOST`.
 */
dockerHost: string, 
/**
 * Virtual CPUs.
 */
cpus: number, 
/**
 * Bytes of the guest's memory.
 */
memory: number, 
/**
 * Bytes that it takes of this computer's memory.
 */
memoryOnHost: number | null, 
/**
 * Bytes that the data disk may grow to.
 */
diskSize: number, 
/**
 * Bytes that the data disk takes on this computer.
 */
diskOnHost: number, 
/**
 * Seconds since its engine answered.
 */
uptimeS: number | null, 
/**
 * The engine's version.
 */
engineVersion: string | null, 
/**
 * Stages of the present or last start, by their beginning.
 */
timings: Array<StageView>, 
/**
 * What a person should know although nothing failed.
 */
notices: Array<string>, };

export type Mount = { 
/**
 * The folder's path or the volume's name.
 */
source: string, 
/**
 * Where it appears in the container.
 */
target: string, 
/**
 * Whether the container may not write.
 */
readOnly: boolean, };

export type MountRow = { 
/**
 * `bind`, `volume`, `tmpfs` …
 */
kind: string, 
/**
 * The folder of this computer, or the volume's name.
 */
source: string, 
/**
 * Where it appears in the container.
 */
target: string, 
/**
 * Whether the container may not write.
 */
readOnly: boolean, };

export type NetworkRow = { 
/**
 * Its full id.
 */
id: string, 
/**
 * Its name.
 */
name: string, 
/**
 * `bridge`, `host`, `none`, `macvlan` …
 */
driver: string, 
/**
 * Its address ranges.
 */
subnets: Array<string>, 
/**
 * Names of the containers that are connected.
 */
containers: Array<string>, 
/**
 * Whether the engine made it, so that it cannot be removed.
 */
builtin: boolean, };

export type PortBinding = { 
/**
 * In the container.
 */
container: number, 
/**
 * On this computer; absent where it is not published.
 */
host: number | null, 
/**
 * `tcp`, `udp` or `sctp`.
 */
protocol: Protocol, };

export type ProcessTable = { 
/**
 * What the columns are.
 */
titles: Array<string>, 
/**
 * A process each, with as many cells as there are titles.
 */
rows: Array<Array<string>>, };

export type Protocol = "tcp" | "udp" | "sctp";

export type Publish = { 
/**
 * On this computer.
 */
host: number, 
/**
 * In the container.
 */
container: number, 
/**
 * Which protocol.
 */
protocol: Protocol, };

export type Restart = "no" | "on-failure" | "unless-stopped" | "always";

export type RunSpec = { 
/**
 * What it is made from.
 */
image: string, 
/**
 * Empty: the engine invents one.
 */
name: string, 
/**
 * The command's words; empty: the image's own.
 */
command: Array<string>, 
/**
 * Environment.
 */
environment: Array<Variable>, 
/**
 * Ports to publish.
 */
ports: Array<Publish>, 
/**
 * Folders and volumes.
 */
mounts: Array<Mount>, 
/**
 * What happens when it ends.
 */
restart: Restart, 
/**
 * Whether it is removed when it ends.
 */
remove: boolean, };

export type Sharing = "no" | "read-only" | "read-write";

export type StageView = { 
/**
 * Its name, in `lower-case-words`.
 */
name: string, 
/**
 * When it began, in microseconds since the start was asked for.
 */
startUs: number, 
/**
 * When it ended.
 */
endUs: number, };

export type Step = { 
/**
 * What is being done, in words.
 */
message: string, 
/**
 * How far the whole is, from 0 to 1; absent where nobody knows.
 */
fraction: number | null, };

export type Usage = { 
/**
 * When it was read.
 */
atMs: number, 
/**
 * Share of one processor: 2.0 are two processors at full load.
 */
cpu: number, 
/**
 * Memory in bytes, without the page cache.
 */
memory: number, 
/**
 * Bytes received from networks since it started.
 */
received: number, 
/**
 * Bytes sent to networks since it started.
 */
sent: number, 
/**
 * Bytes read from disks since it started.
 */
read: number, 
/**
 * Bytes written to disks since it started.
 */
written: number, 
/**
 * How many processes it has.
 */
processes: number, };

export type Variable = { 
/**
 * Its name.
 */
name: string, 
/**
 * Its value.
 */
value: string, };

export type VolumeRow = { 
/**
 * Its name.
 */
name: string, 
/**
 * What keeps it; nearly always `local`.
 */
driver: string, 
/**
 * Bytes; absent until the engine has counted them.
 */
size: number | null, 
/**
 * Names of the containers that mount it.
 */
users: Array<string>, 
/**
 * When it was made.
 */
createdMs: number, };
