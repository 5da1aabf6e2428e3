/** Registries of the host in memory. Every password but `wrong` is right. */
import { HostError, type RegistriesView, type RegistryRow } from "./host";

const HUB = "https://index.docker.io/v1/";

/** The registry that an image is of, as a person would type it. */
export function registryOf(reference: string): string {
  const first = reference.slice(0, Math.max(0, reference.indexOf("/")));
  return /[.:]/.test(first) || first === "localhost" ? first : "docker.io";
}

export class MemoryRegistries {
  #rows: RegistryRow[];

  constructor(stocked: boolean) {
    this.#rows = stocked
      ? [
          row("ghcr.io", "mara", "secretservice"),
          { ...row("registry.old.example:5000", "mara", null), plain: true },
          row(HUB, "mara", "secretservice"),
        ]
      : [];
  }

  view(): RegistriesView {
    return { file: "/home/mara/.docker/config.json", rows: [...this.#rows], helper: "cove", problems: [] };
  }

  signIn(address: string, user: string, password: string): void {
    const host = address.trim().replace(/^https?:\/\//, "").replace(/\/.*$/, "");
    if (!/^[\w.:-]*$/.test(host)) throw new HostError(`\`${address}\` is not the address of a registry`, "Type a host, such as ghcr.io, or nothing for Docker Hub.");
    if (password === "wrong") {
      throw new HostError(
        `login attempt to https://${host || "registry-1.docker.io"}/v2/ failed with status: 401 Unauthorized`,
        "Check user and password, and that the machine reaches the registry.",
        null,
        "registry",
      );
    }
    const key = ["", "docker.io", "index.docker.io"].includes(host) ? HUB : host;
    const others = this.#rows.filter((other) => other.address !== key);
    // A registry stays with the helper that it has.
    const helper = this.#rows.find((other) => other.address === key)?.helper ?? "cove";
    this.#rows = [...others, row(key, user, helper)].sort((a, b) => (a.address < b.address ? -1 : 1));
  }

  signOut(address: string): void {
    this.#rows = this.#rows.filter((row) => row.address !== address);
  }

  /** Whether somebody is signed in at the registry of an image. */
  knows(reference: string): boolean {
    const registry = registryOf(reference);
    return this.#rows.some((row) => row.address === (registry === "docker.io" ? HUB : registry));
  }
}

function row(address: string, user: string, helper: string | null): RegistryRow {
  return { address, name: address === HUB ? "Docker Hub" : address, user, helper, keyring: helper !== null, plain: false };
}
