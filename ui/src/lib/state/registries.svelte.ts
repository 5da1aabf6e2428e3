/** The registries that somebody is signed in to, and how they sign in and out. */
import { quote } from "../command-line";
import type { Host, RegistriesView, RegistryRow } from "../host";
import { Listing } from "./listing.svelte";

/** What Docker Hub is called by those who keep its account. */
const HUB = "https://index.docker.io/v1/";

/** Where a row's address stands in a command: Docker Hub needs none. */
function words(address: string): string[] {
  const host = address.trim();
  return host === "" || host === HUB || host === "docker.io" ? [] : [quote(host)];
}

/** What a row's address is typed as: Docker Hub's is left empty. */
export function typed(address: string): string {
  return words(address).length === 0 ? "" : address;
}

/** `docker login …`, which asks for the password. */
export function loginCommand(address: string, user: string): string {
  return ["docker login", "--username", quote(user.trim() || "USER"), ...words(address)].join(" ");
}

export function logoutCommand(rows: readonly RegistryRow[]): string {
  return rows.map((row) => ["docker logout", ...words(row.address)].join(" ")).join("\n");
}

export class Registries {
  readonly list: Listing<RegistryRow>;
  view = $state.raw<RegistriesView | null>(null);

  constructor(readonly host: Host) {
    this.list = new Listing<RegistryRow>(host, {
      read: async () => {
        this.view = await host.registries();
        return this.view.rows;
      },
      key: (row) => row.address,
      text: (row) => `${row.name} ${row.user} ${row.helper ?? ""}`,
      // No event of the engine's is about accounts.
      kinds: [],
    });
  }

  async signIn(address: string, user: string, password: string): Promise<void> {
    await this.host.signIn(address, user, password);
    await this.list.refresh();
  }

  async signOut(rows: readonly RegistryRow[]): Promise<void> {
    await this.list.each(rows, (row) => this.host.signOut(row.address));
    await this.list.refresh();
  }
}
