import { describe, expect, it } from "vitest";
import type { Member } from "../host";
import { isRange, knots, losses, MOST_DRAWN } from "./networks.svelte";

function members(count: number): Member[] {
  return Array.from({ length: count }, (_, index) => ({ id: String(index), name: `c${index}`, addresses: [], aliases: [], fixedAddresses: [] }));
}

describe("a network's diagram", () => {
  it("keeps containers inside and apart, however many there are", () => {
    for (const count of [1, 2, 5, 40]) {
      const drawn = knots(members(count), 400, 90, 60);
      expect(drawn.length).toBe(Math.min(count, MOST_DRAWN));
      const places = new Set(drawn.map((knot) => `${knot.x}/${knot.y}`));
      expect(places.size).toBe(drawn.length);
      for (const { x } of drawn) {
        expect(x).toBeGreaterThan(0);
        expect(x).toBeLessThan(400);
      }
    }
  });
});

it("address ranges are told from what is none", () => {
  for (const good of ["172.30.0.0/16", "10.0.0.0/8", "fd00:1::/64"]) expect(isRange(good)).toBe(true);
  for (const bad of ["", "172.30.0.0", "300.1.1.1/16", "10.0.0.0/33", "network"]) expect(isRange(bad)).toBe(false);
});

it("names that a container has again by itself are not lost, an address that was asked for is", () => {
  const id = "0123456789abcdef".repeat(4);
  const addresses = ["172.18.0.9", "fd00::9"];
  const member = { id, name: "shop-web-1", addresses, aliases: ["shop-web-1", "web", id.slice(0, 12), "0123"], fixedAddresses: ["172.18.0.9"] };
  expect(losses(member)).toEqual(["web", "0123", "172.18.0.9"]);
});
