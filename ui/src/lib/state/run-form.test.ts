import { expect, it } from "vitest";
import { MemoryHost } from "../host/memory";
import type { ContainerRow } from "../host";
import { freePort, PRESETS, readMemory, readMount, readPort, readProcessors, RunForm } from "./run-form.svelte";

function rows(): ContainerRow[] {
  let seen: ContainerRow[] = [];
  new MemoryHost({ containers: 1, lines: 0, machine: "running" }).watchContainers((found) => (seen = found))();
  return seen;
}

it("names the container that already has the port", () => {
  const form = new RunForm();
  form.ports = "8000:80 8001:81";
  expect(form.problems(rows())).toEqual(["port 8000 is in use by shop-web-1; 8002 is free"]);
});

it("a port is taken where it is published already or on every address, and not beside it", () => {
  const form = new RunForm();
  const taken = (address: string | null) => rows().map((row) => ({ ...row, ports: [{ host: 8000, container: 80, address, protocol: "tcp" as const }] }));
  form.ports = "127.0.0.2:8000:80";
  expect(form.problems(taken("127.0.0.1"))).toEqual([]);
  expect(form.problems(taken("127.0.0.2")).length).toBe(1);
  expect(form.problems(taken(null)).length).toBe(1);
  form.ports = "8000:80";
  expect(form.problems(taken("127.0.0.1")).length).toBe(1);
});

it("says which ports something else on this computer has, and no more once they are given back", async () => {
  const host = new MemoryHost({ containers: 0, lines: 0, machine: "running" });
  const form = new RunForm();
  form.ports = "9100:80 9101:81 bad";
  await form.askForPorts(host);
  expect(form.problems([])).toEqual(["port 9100 is in use on this computer; 9102 is free", "`bad` is not host:container"]);
  // Of another address nothing was asked yet.
  form.ports = "127.0.0.1:9100:80";
  expect(form.problems([])).toEqual([]);
  const answers = [{ kind: "denied", free: null }, { kind: "elsewhere", free: null }] as const;
  form.ports = "80:80 192.0.2.1:8080:80";
  await form.askForPorts({ portsFree: () => Promise.resolve([...answers]) });
  expect(form.problems([])).toEqual(["port 80 needs a privilege on this computer", "this computer has no address 192.0.2.1"]);
  await form.askForPorts({ portsFree: () => Promise.reject(new Error("away")) });
  expect(form.problems([])).toEqual([]);
});

it("proposes no port beyond the last one, and none that is taken", () => {
  expect(freePort(8000, new Set())).toBe(8000);
  expect(freePort(65_535, new Set([65_535, 1024]))).toBe(1025);
});

it("says once what is wrong twice", () => {
  const form = new RunForm();
  form.ports = "80 80";
  expect(form.problems([])).toEqual(["`80` is not host:container"]);
});

it("reads limits in the units that docker has, and says what is none", () => {
  expect([readMemory("512m"), readMemory("1.5 GiB"), readMemory("0m"), readMemory("512"), readMemory("9999999999g")]).toEqual([512, 1536, null, null, null]);
  expect([readProcessors("1.5"), readProcessors("0.25"), readProcessors("0"), readProcessors("-1"), readProcessors("1e3")]).toEqual([1500, 250, null, null, null]);
  const form = new RunForm();
  [form.memory, form.processors] = ["lots", "two"];
  expect(form.problems([])).toHaveLength(2);
  [form.memory, form.processors] = [" 2g ", ""];
  expect(form.problems([])).toEqual([]);
  expect([form.spec.memory, form.spec.processors]).toEqual([2048, null]);
});

it("fills in a well-known image with a name and ports that nobody has", () => {
  const form = new RunForm();
  form.memory = "1g";
  const taken = rows().map((row) => ({ ...row, name: "postgres", ports: [{ host: 5432, container: 5432, address: null, protocol: "tcp" as const }] }));
  const postgres = PRESETS.find((preset) => preset.name === "postgres");
  if (postgres === undefined) throw new Error("there is no such preset");
  form.take(postgres, taken);
  expect(form.problems(taken)).toEqual([]);
  expect([form.spec.name, form.spec.memory]).toEqual(["postgres-2", null]);
  expect(form.spec.ports).toEqual([{ address: "127.0.0.1", host: 5433, container: 5432, protocol: "tcp" }]);
  expect(form.spec.mounts).toEqual([{ source: "postgres-2-data", target: "/var/lib/postgresql/data", readOnly: false }]);
});

it("gives back what was typed before it was filled in at once", () => {
  const form = new RunForm();
  const [first, second] = PRESETS;
  if (first === undefined || second === undefined) throw new Error("there are too few presets");
  form.take(first, []);
  expect(form.replaced, "nothing was typed").toBe(false);
  form.clear();
  [form.image, form.environment, form.restart] = ["mine:1", "KEY=value", "always"];
  form.take(second, []);
  expect([form.image, form.restart, form.replaced]).toEqual([second.image, "no", true]);
  form.name = "changed since";
  form.undo();
  expect([form.image, form.environment, form.restart]).toEqual(["mine:1", "KEY=value", "always"]);
  form.undo();
  expect([form.image, form.name]).toEqual([second.image, "changed since"]);
  form.clear();
  expect([form.spec.image, form.replaced]).toEqual(["", false]);
});

it("says which port is asked for twice, and which command has no end", () => {
  const form = new RunForm();
  form.ports = "8080:80 8080:81 127.0.0.1:9000:80 127.0.0.2:9000:80 53:53 53:53/udp";
  form.command = "sh -c 'echo";
  expect(form.problems([])).toEqual(["port 8080 is asked for twice", "the command has a quote that nothing closes"]);
});

it("names the line of a pasted .env that is no variable", () => {
  const form = new RunForm();
  form.environment = "A=1\nno variable";
  expect(form.problems([])).toEqual(["`no variable` is not NAME=value"]);
});

it("names a few lines of a key that was pasted, and says how many more there are", () => {
  const form = new RunForm();
  form.environment = ["KEY=one", ...Array.from({ length: 40 }, (_, line) => `line ${line}`)].join("\n");
  const named = [0, 1, 2].map((line) => `\`line ${line}\` is not NAME=value`);
  expect(form.problems([])).toEqual([...named, "37 more of these lines are not, either"]);
});

it("refuses ports that do not exist", () => {
  expect(readPort("0:80")).toBeNull();
  expect(readPort("70000:80")).toBeNull();
  expect(readPort("80")).toBeNull();
  expect(readPort("127.0.0.256:80:80")).toBeNull();
  expect(readPort("127.0.0.1:8080:80")).toEqual({ address: "127.0.0.1", host: 8080, container: 80, protocol: "tcp" });
  expect(readPort("53:53/udp")).toEqual({ address: "", host: 53, container: 53, protocol: "udp" });
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

it("marks one line of several as read-only, and takes that back", () => {
  const form = new RunForm();
  form.mounts = "/a:/x\nhalf\n\ndata:/y:ro";
  expect(form.mounted.map(({ place, target, readOnly }) => [place, target, readOnly])).toEqual([[0, "/x", false], [2, "/y", true]]);
  form.setReadOnly(0, true);
  form.setReadOnly(2, false);
  expect(form.mounts).toBe("/a:/x:ro\nhalf\ndata:/y");
});

it("never asks for a restart of what is removed at its end", () => {
  const form = new RunForm();
  form.restart = "always";
  form.remove = true;
  expect(form.spec.restart).toBe("no");
});

it("knows which of the folders that are typed the machine cannot see", () => {
  const form = new RunForm();
  form.mounts = "/home/mara/shop:/srv\n/home/marathon:/m:ro\ndata:/data\n/srv/new:/n\n/srv/new:/twice\n/var/run/docker.sock:/var/run/docker.sock";
  expect(form.unshared([{ path: "/home/mara", readOnly: false, missing: null }])).toEqual(["/home/marathon", "/srv/new"]);
  form.addFolder("/srv/new", false);
  expect(form.spec.mounts.length).toBe(6);
});
