/** The list of networks, and where a diagram of one puts its containers. */
import { quote } from "../command-line";
import type { Host, Member, NetworkRow } from "../host";
import { say } from "../words/index.svelte";
import { Listing, some } from "./listing.svelte";
import { engineGoesOn, type Tasks } from "./tasks.svelte";

/** In a terminal it asks before, as the window has by then. */
export const PRUNE = "docker network prune";

export function networkList(host: Host): Listing<NetworkRow> {
  return new Listing<NetworkRow>(host, {
    read: () => host.networks(),
    key: (row) => row.id,
    text: (row) => `${row.name} ${row.driver} ${row.subnets.join(" ")}`,
    kinds: ["network", "container"],
  });
}

/** The engine's own networks `host` and `none` take no container but when it is created. */
export function joinable(row: NetworkRow): boolean {
  return row.driver !== "host" && row.driver !== "null";
}

export function removalCommand(rows: readonly NetworkRow[]): string {
  return `docker network rm ${rows.map(({ name }) => quote(name)).join(" ")}`;
}

export function removeNetworks(list: Listing<NetworkRow>, tasks: Tasks, rows: readonly NetworkRow[]): Promise<boolean> {
  const about = { title: say("removeOf", { name: some(rows.map(({ name }) => name)) }), command: removalCommand(rows) };
  return list.each(rows, ({ id }) => list.host.removeNetwork(id), { tasks, about, name: ({ name }) => name });
}

/** Removes networks without containers, and says which. */
export function pruneNetworks(host: Pick<Host, "pruneNetworks">, tasks: Tasks): void {
  tasks.begin({ title: say("pruneNetworksOf"), command: PRUNE, ...engineGoesOn() }, async (job) => {
    for (const text of (await host.pruneNetworks()).removed) job.tell({ kind: "line", text });
  });
}

/**
 * What a container does not have any more once it is disconnected from a network and connected again: names that it
 * answers to there besides its own, and addresses that were asked for.
 */
export function losses(member: Member): string[] {
  const names = member.aliases.filter((alias) => alias !== member.name && !(alias.length >= 12 && member.id.startsWith(alias)));
  return [...names, ...member.fixedAddresses];
}

/** Containers that a diagram shows; the list beside it shows all. */
export const MOST_DRAWN = 12;

export interface Knot {
  member: Member;
  x: number;
  y: number;
}

/**
 * Containers above and below the line that the network is, in turn, so that names have room. They are drawn in a
 * space of `width`, the line at `middle`.
 */
export function knots(members: readonly Member[], width: number, middle: number, distance: number): Knot[] {
  const drawn = members.slice(0, MOST_DRAWN);
  const columns = Math.max(1, Math.ceil(drawn.length / 2));
  return drawn.map((member, index) => ({
    member,
    x: ((Math.floor(index / 2) + 0.5) * width) / columns,
    y: index % 2 === 0 ? middle - distance : middle + distance,
  }));
}

/** `172.30.0.0/16`, or an IPv6 range; what else the engine refuses, it says itself. */
export function isRange(text: string): boolean {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(text);
  if (parts !== null) return parts.slice(1, 5).every((part) => Number(part) < 256) && Number(parts[5]) <= 32;
  return /^[0-9a-f:]+\/\d{1,3}$/i.test(text) && text.includes("::") && Number(text.split("/")[1]) <= 128;
}
