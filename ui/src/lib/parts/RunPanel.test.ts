import { flushSync } from "svelte";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { all, buttons, control, fill, leave, memory, mounted, one, press, words } from "../mounted";
import { Containers } from "../state/containers.svelte";
import { Engine } from "../state/engine.svelte";
import { RunForm } from "../state/run-form.svelte";
import { Tasks } from "../state/tasks.svelte";
import RunPanel from "./RunPanel.svelte";

beforeEach(() => {
  vi.useFakeTimers();
  location.hash = "";
});
afterEach(() => void vi.useRealTimers());

function panel() {
  const [host, form, tasks] = [memory(), new RunForm(), new Tasks()];
  const containers = new Containers(host, tasks);
  containers.follow()();
  const engine = new Engine(host);
  const page = mounted(RunPanel, { host, form, tasks, mount: () => undefined, state: containers }, engine);
  return {
    host,
    form,
    tasks,
    engine,
    page,
    problems: () => all(page, "[role=alert] p"),
    pass: async (ms: number) => {
      await vi.advanceTimersByTimeAsync(ms);
      flushSync();
    },
  };
}

it("the command line grows with the form, and nothing is run without an image", () => {
  const { page } = panel();
  expect(buttons(page)).not.toContain("Run");
  fill(page, "Image", "nginx:alpine");
  fill(page, "Name", "web");
  fill(page, "Ports", "8100:80");
  fill(page, "Environment", "TZ=UTC\nGREETING=good day");
  fill(page, "Folders and volumes", "/home/mara/shop:/srv");
  expect(words(one(page, "pre"))).toBe(
    "docker run --detach --name web --publish 8100:80 --mount type=bind,source=/home/mara/shop,target=/srv --env TZ=UTC --env 'GREETING=good day' nginx:alpine",
  );
  expect(buttons(page)).toContain("Run");
});

it("a port that a container has is a conflict while it is typed", () => {
  const { page, problems } = panel();
  fill(page, "Image", "nginx");
  fill(page, "Ports", "8000:80");
  expect(problems()).toEqual(["port 8000 is in use by shop-web-1; 8004 is free"]);
  expect(buttons(page)).not.toContain("Run");
  fill(page, "Ports", "8100:80 81000:81");
  expect(problems()).toEqual(["`81000:81` is not host:container"]);
  fill(page, "Ports", "8100:80");
  expect([problems(), buttons(page).includes("Run")]).toEqual([[], true]);
});

it("a port that a program has is told once typing has paused, and no more once it is given back", async () => {
  const { page, host, problems, pass } = panel();
  const asked = vi.spyOn(host, "portsFree");
  fill(page, "Image", "nginx");
  for (const ports of ["9", "9100", "9100:80"]) {
    fill(page, "Ports", ports);
    await pass(200);
  }
  expect([asked.mock.calls.length, problems()]).toEqual([0, []]);
  await pass(100);
  expect(problems()).toEqual(["port 9100 is in use on this computer; 9101 is free"]);
  expect(buttons(page)).not.toContain("Run");
  asked.mockResolvedValue([null]);
  await pass(3000);
  expect([problems(), buttons(page).includes("Run")]).toEqual([[], true]);
});

it("what docker refuses together cannot be chosen together", () => {
  const { page, form } = panel();
  fill(page, "Image", "alpine");
  form.restart = "always";
  flushSync();
  expect(words(one(page, "pre"))).toBe("docker run --detach --restart always alpine");
  press(page, "Remove when it ends");
  expect(control(page, "Restart").disabled).toBe(true);
  expect(words(one(page, "pre"))).toBe("docker run --detach --rm alpine");
});

it("each mount has a box that makes it read-only", () => {
  const { page, form } = panel();
  fill(page, "Folders and volumes", "/home/mara/shop:/srv\nnonsense\ndata:/var/lib/data:ro");
  expect(all(page, ".check .cut")).toEqual(["/srv read-only", "/var/lib/data read-only"]);
  press(page, "/srv read-only");
  press(page, "/var/lib/data read-only");
  expect(form.mounts).toBe("/home/mara/shop:/srv:ro\nnonsense\ndata:/var/lib/data");
});

it("a run that is refused is told here and not by a toast, keeps what was typed, and can be tried again", async () => {
  const { page, tasks, problems, pass } = panel();
  fill(page, "Image", "alpine:3.23");
  fill(page, "Name", "shop-web-1");
  press(page, "Run");
  await pass(1000);
  expect(problems()).toEqual(["the name `shop-web-1` is in use", "Choose another name, or remove the other container."]);
  expect(tasks.unseen).toEqual([]);
  expect(control<HTMLInputElement>(page, "Name").value).toBe("shop-web-1");
  fill(page, "Name", "another");
  press(page, "Run");
  await pass(1000);
  expect([problems(), control<HTMLInputElement>(page, "Image").value]).toEqual([[], ""]);
  expect(location.hash).toMatch(/^#\/containers\/[0-9a-f]{64}\/logs$/);
});

it("an image that is refused leads to signing in", async () => {
  const { page, pass } = panel();
  fill(page, "Image", "private.example/shop");
  press(page, "Run");
  await pass(1000);
  expect(one(page, "[role=alert] a").getAttribute("href")).toBe("#/registries/new/private.example");
});

it("a pull that a run begins with shows how far it is and can be cancelled, which is no failure", async () => {
  const { page, problems, pass } = panel();
  fill(page, "Image", "haskell");
  press(page, "Run");
  expect(buttons(page)).not.toContain("Run");
  await vi.waitFor(async () => {
    await pass(5);
    one(page, "progress");
  });
  expect([control(page, "Starting…").disabled, words(page)]).toEqual([true, expect.stringContaining("Pulling haskell")]);
  press(page, "Cancel");
  await pass(2000);
  expect([problems(), page.querySelector("progress"), buttons(page).includes("Run")]).toEqual([[], null, true]);
});

it("whoever left the form is told by a toast how its attempt ended, and is not led away", async () => {
  const { page, tasks, pass } = panel();
  fill(page, "Image", "alpine:3.23");
  press(page, "Run");
  await leave(page);
  await pass(1000);
  expect([tasks.unseen.map((task) => task.state), location.hash]).toEqual([["done"], ""]);
});

it("whoever types the next one meanwhile keeps it, and is told by a toast", async () => {
  const { page, tasks, pass } = panel();
  fill(page, "Image", "alpine:3.23");
  press(page, "Run");
  fill(page, "Image", "nginx:alpine");
  fill(page, "Name", "next");
  await pass(1000);
  expect([control<HTMLInputElement>(page, "Image").value, control<HTMLInputElement>(page, "Name").value]).toEqual(["nginx:alpine", "next"]);
  expect([tasks.unseen.map((task) => task.state), location.hash, buttons(page).includes("Run")]).toEqual([["done"], "", true]);
});

it("runs nothing while the engine is lost", () => {
  const { page, engine } = panel();
  fill(page, "Image", "alpine");
  engine.lost = { message: "cannot reach the engine", hint: "" };
  flushSync();
  expect(buttons(page)).not.toContain("Run");
});

it("says for a moment that the command was copied, or could not be", async () => {
  const { page, pass } = panel();
  const write = vi.spyOn(navigator.clipboard, "writeText").mockRejectedValueOnce(new Error("not allowed")).mockResolvedValueOnce();
  press(page, "Copy");
  await pass(0);
  expect(buttons(page)).toContain("Could not be copied");
  await pass(2000);
  press(page, "Copy");
  await pass(0);
  expect([buttons(page).includes("Copied"), write.mock.lastCall]).toEqual([true, ["docker run --detach IMAGE"]]);
});
