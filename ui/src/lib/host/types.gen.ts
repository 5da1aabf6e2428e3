// Made from crates/cove-view. Do not edit: COVE_UPDATE_TYPES=1 cargo test -p cove-view

export type BuildDetails = { 
/**
 * Its steps, in the order in which `BuildKit` named them.
 */
steps: Array<BuildStep>, 
/**
 * What it wrote, one line each, with the escape sequences that these came with.
 */
log: Array<string>, };

export type BuildHistory = { 
/**
 * The newest first.
 */
builds: Array<BuildRow>, 
/**
 * Where a file was put that could not be read.
 */
damaged: string | null, };

export type BuildOutcome = "running" | "done" | "failed" | "cancelled";

export type BuildRow = { 
/**
 * Names it among all builds.
 */
id: string, 
/**
 * What was asked for.
 */
spec: BuildSpec, 
/**
 * When it began.
 */
startedMs: number, 
/**
 * How long it took, in milliseconds.
 */
tookMs: number, 
/**
 * How it ended.
 */
outcome: BuildOutcome, 
/**
 * Why it failed; empty where it did not.
 */
failure: string, 
/**
 * Steps that `BuildKit` took or found done.
 */
steps: number, 
/**
 * Those of them that it found done.
 */
cached: number, };

export type BuildSpec = { 
/**
 * The folder that the build may read, an absolute path.
 */
folder: string, 
/**
 * The Dockerfile, relative to the folder; empty: `Dockerfile`.
 */
dockerfile: string, 
/**
 * The image's name; empty: none.
 */
tag: string, 
/**
 * The stage to build; empty: the last one.
 */
target: string, 
/**
 * Platforms such as `linux/arm64`; none: the machine's own.
 */
platforms: Array<string>, 
/**
 * Build arguments.
 */
args: Array<Variable>, };

export type BuildStep = { 
/**
 * Its number, from 1 on, as the log has it.
 */
number: number, 
/**
 * The stage that it belongs to, with the platform where there are several; absent for what belongs to none.
 */
stage: string | null, 
/**
 * Its place in the stage, such as `2/4`; empty where it has none.
 */
place: string, 
/**
 * What it does, such as `RUN npm ci`.
 */
name: string, 
/**
 * How far it is.
 */
state: BuildStepState, 
/**
 * How long it took, in milliseconds; absent until it has ended.
 */
tookMs: number | null, 
/**
 * What of it is under way, such as a layer that is extracted; empty where nothing is.
 */
note: string, 
/**
 * How much of that has been done, from 0 to 1; absent where nobody knows.
 */
fraction: number | null, 
/**
 * Why it failed; empty where it did not.
 */
error: string, };

export type BuildStepState = "running" | "done" | "cached" | "failed" | "cancelled";

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
fix: string, 
/**
 * The command line that does it, where one does.
 */
command: string | null, };

export type ComposeAction = "up" | "stop" | "restart" | "down";

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
 * The engine's own words, such as `Exited (1) 3 minutes ago`, without what they say of its health.
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

export type CpuTime = { 
/**
 * Ticks in which they worked.
 */
busy: number, 
/**
 * All ticks.
 */
all: number, };

export type DiffLine = { 
/**
 * Whether it goes, comes or stays.
 */
sign: DiffSign, 
/**
 * The line.
 */
text: string, };

export type DiffSign = "same" | "removed" | "added";

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
hint: string, 
/**
 * The registry to sign in to, where that may help; as `sign_in` takes it.
 */
registry?: string, 
/**
 * What kind of failure it is, where that is known: the window has words of its own for it.
 */
kind?: FailureKind, };

export type FailureKind = "daemon_away" | "engine_away" | "engine_refused" | "registry" | "invalid" | "not_found" | "conflict" | "wrong_state" | "not_confirmed" | "bad_image" | "missing_dependency" | "disk_full" | "machine_failed" | "timeout" | "unsupported" | "internal";

export type FileChange = "changed" | "added" | "deleted";

export type FileRow = { 
/**
 * Its name.
 */
name: string, 
/**
 * Whether its name is no text, so that it can be shown and not opened.
 */
garbled: boolean, 
/**
 * What it is.
 */
kind: FileRowKind, 
/**
 * Permissions as `ls` writes them, without the kind: `rwxr-xr-x`.
 */
permissions: string, 
/**
 * The numbers of owner and group: `0:0`.
 */
owner: string, 
/**
 * Its size in bytes.
 */
size: number, 
/**
 * When its content changed; nothing for one that is not there any more.
 */
modifiedMs: number | null, 
/**
 * Where a link leads, as it is written.
 */
target: string | null, 
/**
 * What differs from the image.
 */
change: FileChange | null, };

export type FileRowKind = "folder" | "file" | "special";

export type FileText = { 
/**
 * Its text.
 */
text: string, 
/**
 * Which state of the file this is; saving compares it.
 */
revision: string, };

export type FilesOf = { "kind": "container", 
/**
 * Its id.
 */
id: string, } | { "kind": "volume", 
/**
 * Its name.
 */
name: string, };

export type FilesView = { "kind": "folder", 
/**
 * Its path, links resolved.
 */
path: string, 
/**
 * Folders first, each part by its names.
 */
rows: Array<FileRow>, 
/**
 * Whether there are more than these.
 */
cut: boolean, 
/**
 * Whether files can be renamed and removed: in a container only while it runs, and only then are mounts seen.
 */
running: boolean, 
/**
 * What it is where it is not the container's own.
 */
outside: Outside | null, } | { "kind": "file", 
/**
 * Its path, links resolved.
 */
path: string, 
/**
 * It, as its folder shows it.
 */
row: FileRow, 
/**
 * What it is where it is not the container's own.
 */
outside: Outside | null, };

export type Health = "starting" | "healthy" | "unhealthy";

export type ImageDetails = { 
/**
 * Its digest, `sha256:…`.
 */
id: string, 
/**
 * Its names with tags.
 */
tags: Array<string>, 
/**
 * Names with the digests that registries know it by.
 */
digests: Array<string>, 
/**
 * `linux/amd64`.
 */
platform: string, 
/**
 * Bytes of all its layers.
 */
size: number, 
/**
 * When it was made.
 */
createdMs: number, 
/**
 * Entry point and command, as words.
 */
command: Array<string>, 
/**
 * Ports that it says it offers, `80/tcp`.
 */
ports: Array<string>, 
/**
 * Paths that it wants volumes for.
 */
volumes: Array<string>, 
/**
 * `NAME=value`.
 */
environment: Array<string>, 
/**
 * Who runs in it; empty: root.
 */
user: string, 
/**
 * Its labels.
 */
labels: Array<Label>, 
/**
 * Its layers and the steps between them, the newest first.
 */
layers: Array<LayerRow>, };

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
 * Names of the containers that were made from it.
 */
users: Array<string>, };

export type Label = { 
/**
 * Its name.
 */
name: string, 
/**
 * Its value.
 */
value: string, };

export type LayerFileRow = { 
/**
 * Its path, with a slash in front.
 */
path: string, 
/**
 * Whether it is a folder.
 */
folder: boolean, 
/**
 * Bytes that the layer adds and changes there; of what it removes, the bytes that it hides.
 */
size: number, 
/**
 * What the layer does to it; nothing for a folder that it only does something in.
 */
change: FileChange | null, };

export type LayerRow = { 
/**
 * What was done, as a line of a Dockerfile.
 */
command: string, 
/**
 * Bytes that it added; none for a step that only says something.
 */
size: number, 
/**
 * When it was done.
 */
createdMs: number, };

export type LayerRows = { 
/**
 * The largest first.
 */
rows: Array<LayerFileRow>, 
/**
 * Whether there are more than these.
 */
cut: boolean, };

export type LayerView = { 
/**
 * The digest of its content, `sha256:…`.
 */
digest: string, 
/**
 * What made it, as a line of a Dockerfile; empty where that is not known.
 */
command: string, 
/**
 * Bytes of what it adds and changes.
 */
size: number, 
/**
 * Files and folders that it adds.
 */
added: number, 
/**
 * Files that it writes anew.
 */
changed: number, 
/**
 * What it removes of the layers below.
 */
deleted: number, 
/**
 * Whether its files are known: not where it is packed in a way that is not read here.
 */
readable: boolean, 
/**
 * Files that are not shown: more than are kept, or with names that no file has.
 */
leftOut: number, };

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

export type MachineUsage = { 
/**
 * Bytes that its data disk takes on this computer.
 */
diskOnHost: number, 
/**
 * Bytes that it uses of that disk, without the file system's own tables.
 */
diskUsed: number, 
/**
 * Bytes that it uses of its memory, without what its caches would give up.
 */
memoryUsed: number, 
/**
 * What its processors have done, where it says that.
 */
cpu: CpuTime | null, };

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

export type Member = { 
/**
 * The container's full id.
 */
id: string, 
/**
 * Its name.
 */
name: string, 
/**
 * Its addresses in this network; none while it does not run.
 */
addresses: Array<string>, 
/**
 * Other names that it answers to in this network.
 */
aliases: Array<string>, 
/**
 * Addresses in this network that were asked for, which the engine would not choose again.
 */
fixedAddresses: Array<string>, };

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

export type NetworkDetails = { 
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
 * Whether it leads nowhere outside.
 */
internal: boolean, 
/**
 * Its address ranges.
 */
subnets: Array<Subnet>, 
/**
 * Its labels.
 */
labels: Array<Label>, 
/**
 * Who is connected, by name.
 */
members: Array<Member>, };

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
builtin: boolean, 
/**
 * Whether it leads nowhere outside.
 */
internal: boolean, };

export type NewNetwork = { 
/**
 * Its name.
 */
name: string, 
/**
 * `bridge`, `macvlan` …
 */
driver: string, 
/**
 * Its address range, `172.30.0.0/16`; empty: the engine chooses one.
 */
subnet: string, 
/**
 * Whether it leads nowhere outside.
 */
internal: boolean, };

export type Outside = { 
/**
 * What it is.
 */
kind: OutsideKind, 
/**
 * Its path on this computer or in the machine; of a volume, the name.
 */
place: string, };

export type OutsideKind = "host" | "volume" | "machine";

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
 * The address of this computer that it is published on; absent where that is every one.
 */
address: string | null, 
/**
 * `tcp`, `udp` or `sctp`.
 */
protocol: Protocol, };

export type PortObstacle = { 
/**
 * What it is.
 */
kind: PortObstacleKind, 
/**
 * A port at the same address that could be published instead, if one was found.
 */
free: number | null, };

export type PortObstacleKind = "taken" | "denied" | "elsewhere";

export type ProcessTable = { 
/**
 * What the columns are.
 */
titles: Array<string>, 
/**
 * A process each, with as many cells as there are titles.
 */
rows: Array<Array<string>>, };

export type ProjectRow = { 
/**
 * Its name.
 */
name: string, 
/**
 * The folder that its paths are relative to, an absolute path; absent where its containers do not say.
 */
folder: string | null, 
/**
 * Its files, absolute paths, in the order in which each changes what those before it say.
 */
files: Array<string>, 
/**
 * Its services by name.
 */
services: Array<ServiceRow>, };

export type Protocol = "tcp" | "udp" | "sctp";

export type Pruned = { 
/**
 * Names or digests of what is gone.
 */
removed: Array<string>, 
/**
 * Bytes that became free; none for networks.
 */
bytes: number, };

export type Publish = { 
/**
 * The address of this computer that it is at, such as `127.0.0.1`; empty: all of them.
 */
address: string, 
/**
 * On this computer; 0: a free one, which the engine chooses.
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

export type Reclaimed = { 
/**
 * Bytes that the data disk took on this computer before.
 */
before: number, 
/**
 * Bytes that it takes now.
 */
after: number, };

export type RegistriesView = { 
/**
 * The Docker client's configuration file.
 */
file: string, 
/**
 * Each of them.
 */
rows: Array<RegistryRow>, 
/**
 * The credential helper that keeps the next password; none where there is no such program.
 */
helper: string | null, 
/**
 * What helpers did not tell, and why.
 */
problems: Array<string>, };

export type RegistryRow = { 
/**
 * What the Docker client calls it.
 */
address: string, 
/**
 * What a person calls it: `Docker Hub`, `ghcr.io`.
 */
name: string, 
/**
 * The user; empty where nobody tells.
 */
user: string, 
/**
 * The credential helper that keeps the password, if one does.
 */
helper: string | null, 
/**
 * Whether that helper is the system's or session's keyring.
 */
keyring: boolean, 
/**
 * Whether a password lies in the configuration file as plain text.
 */
plain: boolean, };

export type Removal = { 
/**
 * The container's id.
 */
id: string, 
/**
 * Its name.
 */
name: string, 
/**
 * Whether it runs and would be killed.
 */
running: boolean, 
/**
 * Where volumes without a name are mounted in it, which go with it.
 */
volumes: Array<string>, };

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
 * The network that it joins; empty: the engine's usual one.
 */
network: string, 
/**
 * The most memory that it may use, in MiB.
 */
memory: number | null, 
/**
 * How much of the processors it may use, in thousandths of one.
 */
processors: number | null, 
/**
 * What happens when it ends.
 */
restart: Restart, 
/**
 * Whether it is removed when it ends.
 */
remove: boolean, };

export type Saved = { "kind": "done", 
/**
 * Its state now.
 */
revision: string, } | { "kind": "conflict" };

export type ServiceRow = { 
/**
 * Its name.
 */
name: string, 
/**
 * The image that it runs; empty where it is built and was not yet.
 */
image: string, 
/**
 * Its containers; none until it was brought up.
 */
containers: Array<ContainerRow>, };

export type SettingField = "line" | "switch" | "choice" | "json";

export type SettingRow = { 
/**
 * Its key, such as `machine.cpus`.
 */
key: string, 
/**
 * The value in force, as text; JSON where it is neither text, number nor switch.
 */
value: string, 
/**
 * The value where nothing is set.
 */
default: string, 
/**
 * Whether the file sets it.
 */
set: boolean, 
/**
 * What it is for.
 */
description: string, 
/**
 * What it takes, in words.
 */
accepts: string, 
/**
 * How it is typed.
 */
field: SettingField, 
/**
 * What can be chosen where it is a choice, and else nothing.
 */
choices: Array<string>, };

export type SettingsDiff = { 
/**
 * Lines of the file that change, with those around them; none if nothing does.
 */
lines: Array<DiffLine>, 
/**
 * Running machines that only heed it after a restart.
 */
restartNeeded: Array<string>, 
/**
 * The file that this is a change of: it is only applied to that.
 */
mark: string, };

export type SettingsView = { 
/**
 * The file that they stand in.
 */
file: string, 
/**
 * Each of them.
 */
rows: Array<SettingRow>, 
/**
 * What is wrong with the file, whose last good values these are.
 */
problem: Failure | null, };

export type ShareRow = { 
/**
 * The folder.
 */
path: string, 
/**
 * Whether containers may only read.
 */
readOnly: boolean, 
/**
 * Why the machine does not have it although it runs.
 */
missing: string | null, };

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

export type Subnet = { 
/**
 * `172.18.0.0/16`.
 */
range: string, 
/**
 * The address that leads outside; empty where there is none.
 */
gateway: string, };

export type TaskStep = { "kind": "whole", 
/**
 * What is being done, in words; empty where the title says it all.
 */
message: string, 
/**
 * From 0 to 1; absent where nobody knows.
 */
fraction: number | null, } | { "kind": "part", 
/**
 * Which part, of this task.
 */
id: string, 
/**
 * Its name for a person.
 */
label: string, 
/**
 * What happens to it.
 */
note: string, 
/**
 * From 0 to 1; absent where nobody knows.
 */
fraction: number | null, } | { "kind": "build", 
/**
 * The step.
 */
step: BuildStep, } | { "kind": "line", 
/**
 * Without the line's end; may hold ANSI colours.
 */
text: string, };

export type ThingKind = "container" | "image" | "volume" | "network";

export type TrustRow = { 
/**
 * By which it is told from others.
 */
fingerprint: string, 
/**
 * Whom it names.
 */
subject: string, 
/**
 * Its last moment.
 */
expires: string, };

export type Upload = { "kind": "done", 
/**
 * Sockets, pipes and devices, which were left out.
 */
leftOut: number, 
/**
 * The first of those.
 */
leftOutNames: Array<string>, } | { "kind": "taken", 
/**
 * Their names.
 */
names: Array<string>, };

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
 * Bytes of memory that it may have: its own limit, or all of the machine's; 0 where the engine does not say.
 */
memoryLimit: number, 
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
createdMs: number, 
/**
 * Its labels.
 */
labels: Array<Label>, };
