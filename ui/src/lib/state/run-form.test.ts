import { expect, it } from "vitest";
import { MemoryHost } from "../host/memory";
import type { ContainerRow } from "../host";
import { readMount, readPort, RunForm } from "./run-form.svelte";

function rows(): ContainerRow[] {
  let seen: ContainerRow[] = [];
  new MemoryHost({ containers: 1, lines: 0, machine: "running" }).watchContainers((found) => (seen = found))();
  return seen;
}

it("names the container that already has the port", () => {
  const form = new RunForm();
  form.ports = "8000:80 8001:81";
  expect(form.problems(rows())).toEqual(["port 8000 is in use by shop-web-1"]);
});

it("refuses ports that do not exist", () => {
  expect(readPort("0:80")).toBeNull();
  expect(readPort("70000:80")).toBeNull();
  expect(readPort("80")).toBeNull();
  expect(readPort("53:53/udp")).toEqual({ host: 53, container: 53, protocol: "udp" });
});

it("reads a folder whose name has colons and spaces", () => {
  expect(readMount("/home/a: b:/srv:ro")).toEqual({ source: "/home/a: b", target: "/srv", readOnly: true });
  expect(readMount("data:relative")).toBeNull();
});

it("adds a dropped folder below its own name and keeps what was there", () => {
  const form = new RunForm();
  form.mounts = "data:/var/lib";
  form.addFolder("/home/mara/My Site/", false);
  expect(form.spec.mounts.map((mount) => mount.target)).toEqual(["/var/lib", "/mnt/My Site"]);
});

it("never asks for a restart of what is removed at its end", () => {
  const form = new RunForm();
  form.restart = "always";
  form.remove = true;
  expect(form.spec.restart).toBe("no");
});
