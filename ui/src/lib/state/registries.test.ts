import { expect, it } from "vitest";
import type { RegistryRow } from "../host";
import { MemoryHost } from "../host/memory";
import { loginCommand, logoutCommand, Registries, typed } from "./registries.svelte";

const HUB = "https://index.docker.io/v1/";

async function registries() {
  const host = new MemoryHost({ containers: 3, lines: 0, machine: "running" });
  const state = new Registries(host);
  const stop = state.list.follow();
  await expect.poll(() => state.list.rows?.length).toBe(3);
  return { host, state, stop };
}

const names = (rows: readonly RegistryRow[] | null) => (rows ?? []).map((row) => row.name);

it("who signs in is in the list, by one name for Docker Hub and with the helper that it has", async () => {
  const { state, stop } = await registries();
  await state.signIn("registry.shop.example", "mara", "right");
  expect(names(state.list.rows)).toContain("registry.shop.example");
  await state.signIn("", "mara-too", "right");
  const hub = state.list.rows?.filter((row) => row.address === HUB) ?? [];
  expect(hub.map((row) => [row.user, row.helper])).toEqual([["mara-too", "secretservice"]]);
  stop();
});

it("a wrong password changes nothing and is told in the engine's words", async () => {
  const { state, stop } = await registries();
  const before = state.list.rows;
  await expect(state.signIn("registry.shop.example", "mara", "wrong")).rejects.toThrow("401 Unauthorized");
  expect(state.list.rows).toEqual(before);
  stop();
});

it("signing in again takes a password out of the file, and signing out takes the account away", async () => {
  const { state, stop } = await registries();
  const plain = state.list.rows?.find((row) => row.plain);
  expect(plain?.helper).toBeNull();
  await state.signIn(plain?.address ?? "", "mara", "right");
  const mended = state.list.row(plain?.address ?? "");
  expect([mended?.plain, mended?.helper]).toEqual([false, "cove"]);
  if (mended !== undefined) await state.signOut([mended]);
  expect(names(state.list.rows)).not.toContain(mended?.name);
  expect(state.list.failure).toBeNull();
  stop();
});

it("commands name the registry, and never a password", () => {
  expect(loginCommand("", "")).toBe("docker login --username USER");
  expect(loginCommand("docker.io", "mara")).toBe("docker login --username mara");
  expect(loginCommand("ghcr.io", "a b")).toBe("docker login --username 'a b' ghcr.io");
  const row = { name: "", user: "", helper: null, keyring: false, plain: false };
  expect(logoutCommand([{ ...row, address: HUB }, { ...row, address: "ghcr.io" }])).toBe("docker logout\ndocker logout ghcr.io");
  expect([typed(HUB), typed("ghcr.io")]).toEqual(["", "ghcr.io"]);
});
