import { flushSync } from "svelte";
import { beforeEach, expect, it, vi } from "vitest";
import { type ContainerRow, HostError } from "../host";
import { all, buttons, control, memory, mounted, one, press, words } from "../mounted";
import { Containers } from "../state/containers.svelte";
import { Engine } from "../state/engine.svelte";
import { RunForm } from "../state/run-form.svelte";
import { AllShells } from "../state/shells.svelte";
import { Tasks } from "../state/tasks.svelte";
import { Welcome } from "../state/welcome.svelte";
import ContainersScreen from "./Containers.svelte";

const PLACE = { screen: "containers", item: null, tab: null } as const;

beforeEach(() => (location.hash = ""));

function screen(count = 14, item: string | null = null) {
  const [host, tasks, form] = [memory(count), new Tasks(), new RunForm()];
  const [state, engine] = [new Containers(host, tasks), new Engine(host)];
  const [welcome, shells] = [new Welcome(host, tasks, state), new AllShells(host)];
  const page = mounted(ContainersScreen, { host, form, state, tasks, shells, welcome, mount: () => undefined, place: { ...PLACE, item } }, engine);
  return {
    host,
    form,
    tasks,
    shells,
    state,
    engine,
    page,
    /** What the engine tells. */
    tell: (change: (rows: ContainerRow[]) => ContainerRow[] = (rows) => rows) => {
      host.watchContainers((rows) => (state.rows = change(rows)))();
      flushSync();
    },
    names: () => all(page, ".name"),
    bulk: () => (page.querySelector(".bulk") === null ? [] : buttons(one(page, ".bulk"))),
  };
}

it("reads until the engine has told what there is, which may be nothing", () => {
  const { page, form, tell } = screen(0);
  expect(all(page, ".centre")).toEqual(["Reading…"]);
  tell();
  expect(words(one(page, ".centre h2"))).toBe("No containers yet");
  press(page, "Fill in an example");
  expect([form.image, location.hash]).toEqual(["alpine", "#/containers/new"]);
});

it("does not read where the engine is lost, nor open a welcome page there", () => {
  const { page, engine, tell } = screen(0);
  engine.lost = { message: "the connection broke", hint: "" };
  flushSync();
  expect([all(page, ".centre"), words(one(page, "#engine-notice"))]).toEqual([[], "The engine does not answer. the connection broke"]);
  tell();
  expect(control(page, "Open the welcome page").disabled).toBe(true);
  expect(words(one(page, "#engine-notice"))).toContain("what was last known");
});

it("containers stand by their projects, and what belongs to none last", () => {
  const { page, tell } = screen();
  tell();
  expect(all(page, "section > h2")).toEqual(["blog 4", "metrics 3", "shop 5", "Without a project 2"]);
});

it("a state is written beside its dot, and bad health is told apart", () => {
  const { page, tell } = screen(1);
  const shown = (change: Partial<ContainerRow>) => {
    tell((rows) => rows.map((row) => ({ ...row, ...change })));
    const dot = one(page, ".dot");
    return [["good", "warn", "bad", "off"].filter((tone) => dot.classList.contains(tone)).join(), words(one(page, ".status")), all(page, ".status .bad").length];
  };
  expect(shown({ health: "healthy" })).toEqual(["good", "Up 2 hours · healthy", 0]);
  expect(shown({ health: "unhealthy" })).toEqual(["bad", "Up 2 hours · unhealthy", 1]);
  expect(shown({ state: "paused", status: "Up 2 hours (Paused)" })).toEqual(["warn", "Up 2 hours (Paused)", 0]);
  expect(shown({ state: "exited", status: "Exited (1) 2 hours ago" })).toEqual(["off", "Exited (1) 2 hours ago", 0]);
  expect(shown({ state: "dead", status: "Dead" })).toEqual(["bad", "Dead", 0]);
});

it("two ports are links, those that are none are not, and how many more there are is said", () => {
  const { page, host, tell } = screen(1);
  const open = vi.spyOn(host, "openPort").mockResolvedValue();
  const port = (host: number | null, protocol: "tcp" | "udp" = "tcp") => ({ container: 80, host, address: null as string | null, protocol });
  tell((rows) => rows.map((row) => ({ ...row, ports: [port(null), port(8000), port(8001, "udp"), port(8002), port(8003)] })));
  expect([all(page, ".ports a"), all(page, ".ports > *")]).toEqual([["8000:80"], ["8000:80", "8001:80/udp", "+ 2"]]);
  expect(one(page, ".ports .quiet").getAttribute("title")).toBe("8002:80, 8003:80");
  one(page, ".ports a").click();
  expect(open.mock.calls).toEqual([[8000, null]]);
});

it("a port leads to the address that it is published on, of which one port may have several", () => {
  const { page, host, tell } = screen(1);
  const open = vi.spyOn(host, "openPort").mockResolvedValue();
  const port = (address: string | null) => ({ container: 80, host: 8000, address, protocol: "tcp" as const });
  const shown = (...addresses: (string | null)[]) => {
    tell((rows) => rows.map((row) => ({ ...row, ports: addresses.map(port) })));
    return [...page.querySelectorAll(".ports a")].map((link) => [words(link), link.getAttribute("href")]);
  };
  expect(shown(null, "::1")).toEqual([["8000:80", "http://localhost:8000/"], ["8000:80", "http://[::1]:8000/"]]);
  expect(shown("127.0.0.1", "192.168.1.5")).toEqual([["8000:80", "http://127.0.0.1:8000/"], ["192.168.1.5:8000:80", "http://192.168.1.5:8000/"]]);
  page.querySelectorAll<HTMLAnchorElement>(".ports a")[1]?.click();
  expect(open.mock.calls).toEqual([[8000, "192.168.1.5"]]);
});

it("says of a container how many shells go on in it", () => {
  const { page, shells, state, tell } = screen(1);
  tell();
  const said = () => words(one(page, ".who .small"));
  const image = said();
  const own = shells.enter(state.rows?.[0]?.id ?? null);
  own.add(true);
  flushSync();
  expect(said()).toBe(`Shells: 2 · ${image}`);
  own.end();
  flushSync();
  expect(said()).toBe(image);
});

it("offers to all that is selected what makes sense for one of it at least", () => {
  const { page, tell, bulk } = screen();
  tell();
  expect(bulk()).toEqual([]);
  press(page, "Select scratch-6");
  expect(bulk()).toEqual(["Select all 14", "Start", "Remove", "Cancel"]);
  press(page, "Select shop-web-1");
  expect(bulk()).toEqual(["Select all 14", "Start", "Stop", "Restart", "Pause", "Kill", "Remove", "Cancel"]);
  press(page, "Cancel");
  expect(bulk()).toEqual([]);
});

it("killing names those that it kills and no others, and waits for a yes", async () => {
  const { page, host, tasks, tell } = screen();
  tell();
  const act = vi.spyOn(host, "act");
  for (const name of ["scratch-6", "shop-web-1", "shop-db-1"]) press(page, `Select ${name}`);
  press(page, "Kill");
  const question = "Kill shop-web-1, shop-db-1? They are not asked to end: what they have not written yet is lost.";
  expect(words(one(page, "dialog p"))).toBe(question);
  press(one(page, "dialog"), "Cancel");
  expect([page.querySelector("dialog"), act.mock.calls.length]).toEqual([null, 0]);
  press(page, "Kill");
  press(one(page, "dialog"), "Kill");
  await expect.poll(() => act.mock.calls.length).toBe(2);
  expect([act.mock.calls.map(([action]) => action), tasks.list[0]?.about.command]).toEqual([["kill", "kill"], "docker kill shop-web-1 shop-db-1"]);
});

it("a kill from a container's details is asked about as well", () => {
  let id = "";
  memory(14).watchContainers((rows) => (id = rows.find(({ name }) => name === "shop-web-1")?.id ?? ""))();
  const { page, host, tell } = screen(14, id);
  const act = vi.spyOn(host, "act");
  tell();
  const button = control(one(page, "section[data-pane]"), "Kill");
  expect(button.title).toBe("docker kill shop-web-1");
  button.click();
  flushSync();
  expect([act.mock.calls.length, words(one(page, "dialog p")).startsWith("Kill shop-web-1?")]).toEqual([0, true]);
});

it("what did not work is said above the list, and no more once the next is tried", async () => {
  const { page, host, state, tell } = screen();
  tell();
  vi.spyOn(host, "act").mockRejectedValueOnce(new HostError("it is restarting", "Wait a moment.", null, "wrong_state"));
  press(page, "Select scratch-6");
  press(page, "Start");
  await expect.poll(() => all(page, ".failure")).toEqual(["It cannot be done as things are now. it is restarting Wait a moment."]);
  void state.act("start", [...state.selected]);
  flushSync();
  expect(all(page, ".failure")).toEqual([]);
});

it("the search and the filter hide rows, and what is selected stays so", () => {
  const { page, names, tell, state } = screen();
  tell();
  press(page, "Select scratch-6");
  press(page, "Stopped");
  expect(names()).toEqual(["scratch-6"]);
  press(page, "Running");
  expect([names().includes("scratch-6"), state.selected.size]).toEqual([false, 1]);
  state.search = "no such thing";
  flushSync();
  expect([names(), all(page, ".centre")]).toEqual([[], ["Nothing matches"]]);
});
