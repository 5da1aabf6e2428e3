/** The form that builds an image: free text in the fields, a checked `BuildSpec` out of it. */
import { buildCommand, readEnvironment } from "../command-line";
import type { BuildSpec, Dropped } from "../host";

export class BuildForm {
  /** Null until one was chosen or dropped. */
  folder = $state.raw<Pick<Dropped, "path" | "dockerfile" | "shared"> | null>(null);
  dockerfile = $state("");
  tag = $state("");
  target = $state("");
  platforms = $state("");
  args = $state("");
  /** Whether a folder that is not shared yet is shared for writing, too. */
  writing = $state(false);

  readonly spec = $derived<BuildSpec>({
    folder: this.folder?.path ?? "",
    dockerfile: this.dockerfile.trim(),
    tag: this.tag.trim(),
    target: this.target.trim(),
    platforms: this.platforms.split(/[\s,]+/).filter(Boolean),
    args: readEnvironment(this.args),
  });
  readonly command = $derived(buildCommand(this.spec));
  readonly ready = $derived(this.folder !== null && (this.folder.dockerfile || this.spec.dockerfile !== ""));

  take(folder: Dropped): void {
    if (this.folder?.path !== folder.path) this.tag = this.tag || `${imageName(folder.name)}:latest`;
    this.folder = folder;
  }

  /** Asks for the same once more. */
  fill(spec: BuildSpec): void {
    this.folder = { path: spec.folder, dockerfile: true, shared: "read-only" };
    [this.dockerfile, this.tag, this.target] = [spec.dockerfile, spec.tag, spec.target];
    this.platforms = spec.platforms.join(", ");
    this.args = spec.args.map(({ name, value }) => `${name}=${value}`).join("\n");
  }
}

/** A folder's name as an image may be called. */
export function imageName(folder: string): string {
  return folder.toLowerCase().replaceAll(/[^a-z0-9._-]+/g, "-").replaceAll(/^[^a-z0-9]+|[^a-z0-9]+$/g, "") || "image";
}
