/** The form that builds an image: free text in the fields, a checked `BuildSpec` out of it. */
import { buildCommand, readEnvironment } from "../command-line";
import type { BuildSpec, Dropped, Sharing } from "../host";
import { variableProblems } from "./variables";

/** The fields that an earlier build fills. */
const FIELDS = ["dockerfile", "tag", "target", "platforms", "args"] as const;

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

  /** The name that was proposed for the folder, which a person may have changed. */
  #proposed = "";
  /** What an earlier build filled in, which says nothing of another folder. */
  #filled: Partial<Record<(typeof FIELDS)[number], string>> = {};

  readonly spec = $derived<BuildSpec>({
    folder: this.folder?.path ?? "",
    dockerfile: this.dockerfile.trim(),
    tag: this.tag.trim(),
    target: this.target.trim(),
    platforms: this.platforms.split(/[\s,]+/).filter(Boolean),
    args: readEnvironment(this.args),
  });
  readonly command = $derived(buildCommand(this.spec));
  /** What is wrong with the arguments. */
  readonly problems = $derived(variableProblems(this.args));
  readonly ready = $derived(this.problems.length === 0 && this.folder !== null && (this.folder.dockerfile || this.spec.dockerfile !== ""));

  /** Takes a folder. What the form filled in for another goes, what a person typed stays. */
  take(folder: Dropped): void {
    if (this.folder?.path !== folder.path) {
      for (const field of FIELDS) if (this[field] === this.#filled[field]) this[field] = "";
      this.#filled = {};
      if (this.tag === this.#proposed) this.tag = "";
      this.#proposed = `${imageName(folder.name)}:latest`;
      this.tag ||= this.#proposed;
      this.writing = false;
    }
    this.folder = folder;
  }

  /** Asks for the same once more, of a folder that is shared like this now. */
  fill(spec: BuildSpec, shared: Sharing): void {
    this.folder = { path: spec.folder, dockerfile: true, shared };
    this.writing = false;
    [this.dockerfile, this.tag, this.target] = [spec.dockerfile, spec.tag, spec.target];
    this.platforms = spec.platforms.join(", ");
    this.args = spec.args.map(({ name, value }) => `${name}=${value}`).join("\n");
    this.#filled = Object.fromEntries(FIELDS.map((field) => [field, this[field]]));
  }
}

/** A folder's name as an image may be called. */
export function imageName(folder: string): string {
  return folder.toLowerCase().replaceAll(/[^a-z0-9._-]+/g, "-").replaceAll(/^[^a-z0-9]+|[^a-z0-9]+$/g, "") || "image";
}
