import { expect, it } from "vitest";
import type { ContainerRow } from "../host";
import { doIt, entriesOf, found, goTo } from "./palette";

const ROW: ContainerRow = {
  id: "a1", name: "shop-web-1", image: "nginx", project: "shop", service: "web", state: "running", health: null, status: "Up 1 hour", createdMs: 0, ports: [],
};

it("finds what holds every word, in any order, and shows no more than a screenful", () => {
  const entries = [goTo("Images", "#/images"), doIt("Stop: web", () => undefined, "docker stop web"), goTo("web", "#/containers/1", "nginx")];
  expect(found(entries, "web STOP").map((entry) => entry.label)).toEqual(["Stop: web"]);
  expect(found(entries, "nginx images")).toEqual([]);
  expect(found(entries, " ").length).toBe(3);
  expect(found(Array.from({ length: 500 }, (_, index) => goTo(`a${index}`, `#/${index}`)), "a").length).toBe(11);
});

it("offers what a container can do in its state, and nothing that is lost by a slip", () => {
  const done: string[] = [];
  const labels = (row: ContainerRow) => entriesOf(row, (action, id) => done.push(`${action} ${id}`)).map((entry) => entry.label);
  expect(labels(ROW)).toEqual(["Stop: shop-web-1", "Restart: shop-web-1", "Pause: shop-web-1", "Logs: shop-web-1", "Terminal: shop-web-1", "Files: shop-web-1"]);
  expect(labels({ ...ROW, state: "exited" })).toEqual(["Start: shop-web-1", "Logs: shop-web-1", "Files: shop-web-1"]);
  const [stop] = entriesOf(ROW, (action, id) => done.push(`${action} ${id}`));
  if (typeof stop?.to === "function") stop.to();
  expect([stop?.note, done]).toEqual(["docker stop shop-web-1", ["stop a1"]]);
});
