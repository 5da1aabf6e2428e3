/**
 * Images, volumes, networks and registries of the host in memory. Who uses them follows from the containers, as in the engine;
 * what is done to them stays done.
 */
import { type Job, HostError, type Missed, type Stop } from "./host";
import { MemoryFiles } from "./memory-files";
import { digestOf, MemoryImages, step } from "./memory-images";
import { MemoryProjects } from "./memory-projects";
import { MemoryRegistries, registryOf } from "./memory-registries";
import type { ThingsHost } from "./things";
import type {
  Failure,
  ImageDetails,
  ImageRow,
  Label,
  LayerRows,
  LayerView,
  NetworkDetails,
  NetworkRow,
  NewNetwork,
  Pruned,
  RegistriesView,
  ThingKind,
  VolumeRow,
} from "./types.gen";

const MIB = 1024 * 1024;

interface Volume {
  name: string;
  bytes: number;
  createdMs: number;
  labels: Label[];
  /** Made when somebody looks. */
  files?: MemoryFiles;
}

interface Network {
  id: string;
  name: string;
  driver: string;
  subnet: string;
  internal: boolean;
  builtin: boolean;
  members: Set<string>;
}

export abstract class MemoryThings extends MemoryProjects implements ThingsHost {
  #images = new MemoryImages([], 0);
  #registries = new MemoryRegistries(false);
  #volumes: Volume[] = [];
  #networks: Network[] = [];
  #now = 0;
  readonly #watchers = new Set<(kinds: ThingKind[]) => void>();
  readonly #engineWatchers = new Set<(why: Failure | null) => void>();
  #lost: Failure | null = null;

  /** What is there before anything was done: what the containers need, and something that nobody uses. */
  protected stock(now: number): void {
    const rows = this.containers();
    this.#now = now;
    this.stockBuilds(now);
    this.#images = new MemoryImages([...new Set(rows.map((row) => row.image))], now);
    if (rows.length > 0) this.#images.addUnused();
    this.#registries = new MemoryRegistries(rows.length > 0);
    this.#volumes = rows.filter((row) => row.service === "db").map((row, index) => ({
      name: `${row.project}_data`,
      bytes: (41 + index * 212) * MIB,
      createdMs: row.createdMs,
      labels: [{ name: "com.docker.compose.project", value: row.project ?? "" }],
    }));
    if (rows.length > 0) this.#volumes.push({ name: "old-cache", bytes: 118 * MIB, createdMs: now - 40 * 86_400_000, labels: [] });
    const projects = [...new Set(rows.flatMap((row) => (row.project === null ? [] : [row.project])))];
    const network = (name: string, index: number, driver: string, names: string[], builtin: boolean): Network => ({
      id: digestOf(`network/${name}`).slice(7),
      name,
      driver,
      subnet: driver === "bridge" ? `172.${17 + (index % 200)}.0.0/16` : "",
      internal: false,
      builtin,
      members: new Set(names),
    });
    this.#networks = [
      network("bridge", 0, "bridge", rows.filter((row) => row.project === null).map((row) => row.name), true),
      ...projects.map((project, index) =>
        network(`${project}_default`, index + 1, "bridge", rows.filter((row) => row.project === project).map((row) => row.name), false),
      ),
      network("host", 0, "host", [], true),
    ];
  }

  /** In the page, tests lose the engine and find it again by an event of their own. */
  watchEngine(seen: (why: Failure | null) => void): Stop {
    const hear = (event: Event) => {
      if (event instanceof CustomEvent) this.loseEngine(event.detail as Failure | null);
    };
    if (typeof window !== "undefined") window.addEventListener("cove-engine", hear);
    this.#engineWatchers.add(seen);
    seen(this.#lost);
    return () => {
      if (typeof window !== "undefined") window.removeEventListener("cove-engine", hear);
      this.#engineWatchers.delete(seen);
    };
  }

  /** There is no tray in the page: tests choose in it by an event of their own. */
  watchTray(seen: (missed: Missed) => void): Stop {
    const hear = (event: Event) => {
      if (event instanceof CustomEvent) seen(event.detail as Missed);
    };
    window.addEventListener("cove-tray", hear);
    return () => window.removeEventListener("cove-tray", hear);
  }

  /** Has the engine answer no more, for this reason, or again. What changed meanwhile is not known: all lists may have. */
  loseEngine(why: Failure | null): void {
    // Each that watches the engine hears of the page's event.
    if (why === this.#lost) return;
    this.#lost = why;
    for (const seen of this.#engineWatchers) seen(why);
    if (why === null) for (const kind of ["container", "image", "volume", "network"] as const) this.changed(kind);
  }

  protected mustAnswer(): void {
    if (this.#lost !== null) throw new HostError(this.#lost.message, this.#lost.hint, null, "engine_away");
  }

  protected changed(kind: ThingKind): void {
    for (const seen of this.#watchers) seen([kind]);
  }

  protected built(tag: string): void {
    this.#images.add(tag);
    this.changed("image");
  }

  protected hasImage(reference: string): boolean {
    return this.#images.has(reference);
  }

  watchChanges(seen: (kinds: ThingKind[]) => void): Stop {
    this.#watchers.add(seen);
    return () => this.#watchers.delete(seen);
  }

  async images(): Promise<ImageRow[]> {
    this.mustAnswer();
    return this.#images.rows((image) => this.#usersOf(image.tags));
  }

  async imageDetails(id: string): Promise<ImageDetails> {
    return this.#images.details(id);
  }

  readLayers(id: string, job: Job): Promise<LayerView[]> {
    return this.#images.readLayers(id, job);
  }

  async layerFiles(id: string, layer: number, folder: string | null, search: string): Promise<LayerRows> {
    return this.#images.layerFiles(id, layer, folder, search);
  }

  async pullImage(reference: string, job: Job): Promise<void> {
    const registry = registryOf(reference);
    if (registry.startsWith("private.") && !this.#registries.knows(reference)) {
      throw new HostError(`cannot pull ${reference}: no basic auth credentials`, `Sign in to ${registry}, with an account that may pull it.`, registry, "registry");
    }
    await this.#images.pull(reference, job);
    this.changed("image");
  }

  pushImage(reference: string, job: Job): Promise<void> {
    return this.#images.push(reference, job);
  }

  async tagImage(id: string, reference: string): Promise<void> {
    this.#images.tag(id, reference);
    this.changed("image");
  }

  async removeImage(reference: string, force: boolean): Promise<void> {
    this.#images.remove(reference, force, (tags) => this.#usersOf(tags));
    this.changed("image");
  }

  async pruneImages(unused: boolean): Promise<Pruned> {
    const gone = (await this.images()).filter((row) => row.users.length === 0 && (unused || row.tags.length === 0));
    for (const row of gone) this.#images.remove(row.id, true, () => []);
    this.changed("image");
    return { removed: gone.map((row) => row.tags[0] ?? row.id), bytes: gone.reduce((sum, row) => sum + row.size, 0) };
  }

  async saveImages(references: string[], job: Job): Promise<string | null> {
    await this.work(job);
    return `/home/mara/${(references[0] ?? "images").replaceAll(/[/:]/g, "-")}.tar`;
  }

  /** A tar file holds the image that it is named after. */
  async loadImages(dropped: string | null, job: Job): Promise<boolean> {
    const path = dropped ?? "/home/mara/tools.tar";
    if (!/\.(tar|tgz|tar\.\w+)$/.test(path)) {
      throw new HostError(`cannot load ${path}: unexpected EOF`, "Choose a file that docker save made.");
    }
    await this.#images.pull((path.split("/").pop() ?? path).replace(/\.(tar|tgz).*$/, ""), job);
    this.changed("image");
    return true;
  }

  async importImage(reference: string, job: Job): Promise<boolean> {
    await this.#images.pull(reference, job);
    this.changed("image");
    return true;
  }

  async volumes(): Promise<VolumeRow[]> {
    this.mustAnswer();
    return this.#volumes.map((volume) => ({
      name: volume.name,
      driver: "local",
      size: null,
      users: this.containers().filter((row) => row.service === "db" && `${row.project}_data` === volume.name).map((row) => row.name),
      createdMs: volume.createdMs,
      labels: volume.labels,
    }));
  }

  protected filesOfVolume(name: string): MemoryFiles {
    const volume = this.#volume(name);
    return (volume.files ??= MemoryFiles.ofVolume(this.#now, volume.bytes > 0));
  }

  async volumeSizes(): Promise<ReadonlyMap<string, number>> {
    return new Map(this.#volumes.map((volume) => [volume.name, volume.bytes]));
  }

  async createVolume(name: string, labels: Label[]): Promise<void> {
    this.#addVolume(name === "" ? digestOf(String(this.#volumes.length)).slice(7) : name, 0, labels);
  }

  async removeVolume(name: string): Promise<void> {
    const users = (await this.volumes()).find((volume) => volume.name === name)?.users ?? [];
    if (users.length > 0) throw new HostError(`remove ${name}: volume is in use - [${users.join(", ")}]`);
    this.#volume(name);
    this.#volumes = this.#volumes.filter((volume) => volume.name !== name);
    this.changed("volume");
  }

  async emptyVolume(name: string, job: Job): Promise<void> {
    await this.work(job);
    const volume = this.#volume(name);
    volume.bytes = 0;
    delete volume.files;
    this.changed("volume");
  }

  async cloneVolume(name: string, to: string, job: Job): Promise<void> {
    const { bytes } = this.#volume(name);
    await this.work(job);
    this.#addVolume(to, bytes, []);
  }

  async backUpVolume(name: string, job: Job): Promise<string | null> {
    this.#volume(name);
    await this.work(job);
    return `/home/mara/${name}.tar`;
  }

  async restoreVolume(name: string, job: Job): Promise<boolean> {
    await this.work(job);
    this.#addVolume(name, 41 * MIB, []);
    return true;
  }

  async networks(): Promise<NetworkRow[]> {
    this.mustAnswer();
    return this.#networks.map(({ id, name, driver, subnet, members, builtin, internal }) => ({
      id,
      name,
      driver,
      subnets: subnet === "" ? [] : [subnet],
      containers: [...members],
      builtin,
      internal,
    }));
  }

  async networkDetails(id: string): Promise<NetworkDetails> {
    const { name, driver, internal, subnet, members } = this.#network(id);
    const rows = this.containers().filter((row) => members.has(row.name));
    return {
      id,
      name,
      driver,
      internal,
      subnets: subnet === "" ? [] : [{ range: subnet, gateway: subnet.replace(/\d+\/\d+$/, "1") }],
      labels: [],
      members: rows.map((row, index) => ({
        id: row.id,
        name: row.name,
        addresses: row.state === "running" ? [subnet.replace(/\d+\/\d+$/, String(index + 2))] : [],
        aliases: row.service === null ? [] : [row.service],
        fixedAddresses: [],
      })),
    };
  }

  async createNetwork(wanted: NewNetwork): Promise<string> {
    if (this.#networks.some((network) => network.name === wanted.name)) {
      throw new HostError(`network with name ${wanted.name} already exists`);
    }
    const id = digestOf(`network/${wanted.name}`).slice(7);
    const subnet = wanted.subnet || `172.${40 + this.#networks.length}.0.0/16`;
    this.#networks = [...this.#networks, { ...wanted, id, subnet, builtin: false, members: new Set() }];
    this.changed("network");
    return id;
  }

  async connectNetwork(id: string, container: string): Promise<void> {
    const row = this.containers().find((row) => row.id === container || row.name === container);
    if (row === undefined) throw new HostError(`No such container: ${container}`);
    this.#network(id).members.add(row.name);
    this.changed("network");
  }

  async disconnectNetwork(id: string, container: string): Promise<void> {
    const row = this.containers().find((row) => row.id === container || row.name === container);
    this.#network(id).members.delete(row?.name ?? container);
    this.changed("network");
  }

  async removeNetwork(id: string): Promise<void> {
    const network = this.#network(id);
    if (network.members.size > 0) throw new HostError(`error while removing network: network ${network.name} has active endpoints`);
    this.#networks = this.#networks.filter((other) => other !== network);
    this.changed("network");
  }

  async pruneNetworks(): Promise<Pruned> {
    const gone = this.#networks.filter((network) => !network.builtin && network.members.size === 0);
    this.#networks = this.#networks.filter((network) => !gone.includes(network));
    this.changed("network");
    return { removed: gone.map((network) => network.name), bytes: 0 };
  }

  async registries(): Promise<RegistriesView> {
    return this.#registries.view();
  }

  async signIn(address: string, user: string, password: string): Promise<void> {
    this.#registries.signIn(address, user, password);
  }

  async signOut(address: string): Promise<void> {
    this.#registries.signOut(address);
  }

  #usersOf(tags: readonly string[]): string[] {
    return this.containers().filter((row) => tags.includes(row.image)).map((row) => row.name);
  }

  /** Something that takes a moment and tells how far it is. */
  protected async work(job: Job): Promise<void> {
    for (let part = 1; part <= 10; part += 1) {
      await step(job);
      job.tell({ kind: "whole", message: `${part * 4}.0 MiB`, fraction: part / 10 });
    }
  }

  #addVolume(name: string, bytes: number, labels: Label[]): void {
    if (this.#volumes.some((volume) => volume.name === name)) {
      throw new HostError(`there is a volume ${name} already`, "Choose another name.");
    }
    this.#volumes = [{ name, bytes, createdMs: this.#now, labels }, ...this.#volumes];
    this.changed("volume");
  }

  #volume(name: string): Volume {
    const volume = this.#volumes.find((volume) => volume.name === name);
    if (volume === undefined) throw new HostError(`get ${name}: no such volume`);
    return volume;
  }

  #network(id: string): Network {
    const network = this.#networks.find((network) => network.id === id);
    if (network === undefined) throw new HostError(`network ${id.slice(0, 12)} not found`);
    return network;
  }
}
