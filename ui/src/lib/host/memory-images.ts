/** Images of the host in memory. They are pulled from a registry that has every name, layer by layer. */
import { HostError, type ImageDetails, type ImageRow, type Job, type LayerRows, type LayerView } from "./host";
import { layerRows, layerViews } from "./memory-layers";

const MIB = 1024 * 1024;

/** A number that a name always gives. */
export function numberOf(name: string): number {
  let number = 7;
  for (const letter of name) number = (number * 31 + letter.charCodeAt(0)) % 1_000_003;
  return number;
}

/** A digest that a name always gives. */
export function digestOf(name: string): string {
  return `sha256:${numberOf(name).toString(16).padStart(8, "0").repeat(8)}`;
}

/** Waits for one step of a job, unless it is cancelled. */
export async function step(job: Job): Promise<void> {
  await new Promise((done) => setTimeout(done, 40));
  if (job.signal.aborted) throw new HostError("cancelled");
}

const DAY = 86_400_000;

/** What an image was made by, the newest step first: a command and its share of the image's bytes. */
const STEPS: readonly [string, number][] = [
  ['CMD ["nginx", "-g", "daemon off;"]', 0],
  ["EXPOSE 80", 0],
  ["COPY docker-entrypoint.sh /", 0.001],
  ["RUN set -x && addgroup -g 101 -S nginx && adduser -S -D -H -u 101 -G nginx nginx && apk add --no-cache nginx", 0.73],
  ["ENV NGINX_VERSION=1.29.0", 0],
  ["ADD alpine-minirootfs-3.23.0-x86_64.tar.gz /", 0.269],
];

export class MemoryImages {
  #images: ImageRow[];
  /** Images whose layers were read. */
  readonly #read = new Set<string>();
  readonly #now: number;

  constructor(tags: readonly string[], now: number) {
    this.#now = now;
    this.#images = tags.map((tag, index) => this.#made(tag, (8 + index * 61) * MIB, index + 1));
  }

  /** What a person has lying about: an older build without a name, and an image that was tried once. */
  addUnused(): void {
    this.#images.push(this.#made("python:3.14-slim", 131 * MIB, 33));
    this.#images.push({ ...this.#made("shop/api:older", 246 * MIB, 12), tags: [] });
  }

  has(tag: string): boolean {
    return this.#images.some((image) => image.tags.includes(withTag(tag)));
  }

  rows(users: (row: ImageRow) => string[]): ImageRow[] {
    return this.#images.map((row) => ({ ...row, users: users(row) }));
  }

  details(id: string): ImageDetails {
    const { tags, size, createdMs } = this.#find(id);
    return {
      id,
      tags,
      size,
      createdMs,
      digests: tags.map((tag) => `${tag.replace(/:[^:/]*$/, "")}@${digestOf(`${tag}@`)}`),
      platform: "linux/amd64",
      command: ["/docker-entrypoint.sh", "nginx", "-g", "daemon off;"],
      ports: ["80/tcp"],
      volumes: [],
      environment: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "NGINX_VERSION=1.29.0"],
      user: "",
      labels: [{ name: "maintainer", value: "NGINX Docker Maintainers" }],
      layers: STEPS.map(([command, share], index) => ({ command, size: Math.round(size * share), createdMs: createdMs - index * 1000 })),
    };
  }

  async readLayers(id: string, job: Job): Promise<LayerView[]> {
    const image = this.#find(id);
    for (let part = 1; part <= 8 && !this.#read.has(id); part += 1) {
      await step(job);
      job.tell({ kind: "whole", message: `${Math.round((image.size * part) / 8 / MIB)}.0 MiB`, fraction: part / 8 });
    }
    this.#read.add(id);
    return layerViews(digestOf);
  }

  layerFiles(id: string, layer: number, folder: string | null, search: string): LayerRows {
    if (!this.#read.has(id)) throw new HostError("the files of this layer are not known any more", "Read the layers again.");
    return layerRows(layer, folder, search);
  }

  async pull(reference: string, job: Job): Promise<void> {
    const tag = withTag(reference);
    job.tell({ kind: "line", text: `Pulling from ${tag.slice(0, tag.lastIndexOf(":"))}` });
    await this.#move(tag, "Downloading", "Pull complete", job);
    job.tell({ kind: "line", text: `Digest: ${digestOf(tag)}` });
    if (!this.has(tag)) this.#images = [this.#made(tag, (8 + (numberOf(tag) % 90)) * MIB, 2), ...this.#images];
  }

  /** An image that was built: what had its name before loses it. */
  add(reference: string): void {
    const tag = withTag(reference);
    const others = this.#images.map((image) => ({ ...image, tags: image.tags.filter((known) => known !== tag) }));
    this.#images = [{ ...this.#made(tag, 61 * MIB, 0), id: digestOf(`${tag}/built`) }, ...others.filter((image) => image.id !== digestOf(`${tag}/built`))];
  }

  async push(reference: string, job: Job): Promise<void> {
    this.#find(reference);
    if (!reference.includes("/")) {
      throw new HostError(`cannot push ${reference}: denied: requested access to the resource is denied`, "Check that the machine reaches the registry.", null, "registry");
    }
    await this.#move(reference, "Pushing", "Pushed", job);
  }

  tag(id: string, reference: string): void {
    const image = this.#find(id);
    const tag = withTag(reference);
    if (!/^[a-z0-9][a-z0-9._/:-]*$/.test(tag)) throw new HostError("invalid reference format");
    // A name belongs to one image: it leaves the one that had it.
    this.#images = this.#images.map((other) => ({
      ...other,
      tags: [...other.tags.filter((known) => known !== tag), ...(other.id === image.id ? [tag] : [])],
    }));
  }

  remove(reference: string, force: boolean, users: (tags: string[]) => string[]): void {
    const image = this.#find(reference);
    if (image.id !== reference && image.tags.length > 1) {
      this.#images = this.#images.map((other) => (other === image ? { ...other, tags: other.tags.filter((tag) => tag !== reference) } : other));
      return;
    }
    const [user] = users(image.tags);
    if (user !== undefined && !force) {
      throw new HostError(`conflict: unable to remove repository reference "${reference}" (must force) - container ${user} is using its referenced image`);
    }
    this.#images = this.#images.filter((other) => other !== image);
  }

  async #move(tag: string, way: string, end: string, job: Job): Promise<void> {
    const layers = [0, 1, 2].map((index) => digestOf(`${tag}/${index}`).slice(7, 19));
    for (let round = 1; round <= 20; round += 1) {
      await step(job);
      layers.forEach((id, index) => {
        const fraction = Math.min(1, (round / 20) * (1 + index * 0.2));
        job.tell({ kind: "part", id, label: id, note: fraction < 1 ? way : end, fraction });
      });
      job.tell({ kind: "whole", message: "", fraction: round / 20 });
    }
  }

  #find(reference: string): ImageRow {
    const image = this.#images.find((image) => image.id === reference || image.tags.includes(withTag(reference)));
    if (image === undefined) throw new HostError(`No such image: ${reference}`);
    return image;
  }

  #made(tag: string, size: number, daysAgo: number): ImageRow {
    return { id: digestOf(tag), tags: [tag], size, createdMs: this.#now - daysAgo * DAY, users: [] };
  }
}

/** The engine's own rule: what names no version is `latest`. */
function withTag(reference: string): string {
  return /[:@]/.test(reference.slice(reference.lastIndexOf("/") + 1)) ? reference : `${reference}:latest`;
}
