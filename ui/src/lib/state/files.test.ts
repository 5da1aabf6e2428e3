import { describe, expect, it } from "vitest";
import type { FilesOf } from "../host";
import { MemoryHost } from "../host/memory";
import { crumbs, endingsOf, Files, OpenFile, outsideWords, type Write } from "./files.svelte";
import { Tasks } from "./tasks.svelte";

const OF: FilesOf = { kind: "container", id: "0001".repeat(16) };
const host = () => new MemoryHost({ containers: 1, lines: 0, machine: "running" });
const writer = (memory: MemoryHost): Write => (path, text, revision) => memory.writeFile(OF, path, text, revision);

describe("a file that is open", () => {
  it("is not saved over what another wrote meanwhile, but by force", async () => {
    const memory = host();
    const path = "/etc/hostname";
    const { text, revision } = await memory.readFile(OF, path);
    const file = new OpenFile(path, text, revision);
    await memory.writeFile(OF, path, "theirs, and longer\n", null);
    file.text = "ours\n";
    await file.save(writer(memory));
    expect([file.conflict, file.changed]).toEqual([true, true]);
    expect((await memory.readFile(OF, path)).text).toBe("theirs, and longer\n");
    await file.save(writer(memory), true);
    expect([file.conflict, file.changed]).toEqual([false, false]);
    expect((await memory.readFile(OF, path)).text).toBe("ours\n");
  });

  it("keeps how its lines end", async () => {
    const memory = host();
    await memory.writeFile(OF, "/etc/hostname", "one\r\ntwo\r\n", null);
    const { text, revision } = await memory.readFile(OF, "/etc/hostname");
    const file = new OpenFile("/etc/hostname", text, revision);
    expect(file.changed).toBe(false);
    file.text = `${file.text}three\n`;
    await file.save(writer(memory));
    expect((await memory.readFile(OF, "/etc/hostname")).text).toBe("one\r\ntwo\r\nthree\r\n");
  });

  it("of mixed endings is told from the others", () => {
    expect(["", "a\nb\n", "a\r\nb\r\n", "a\r\nb\n", "a\rb"].map(endingsOf)).toEqual(["lf", "lf", "crlf", "mixed", "mixed"]);
  });
});

describe("what is open", () => {
  it("stays when a folder that was asked for before answers after it", async () => {
    const memory = host();
    const files = new Files(memory, new Tasks(), OF);
    await files.open("/");
    let answer = () => {};
    const late = new Promise<void>((done) => (answer = done));
    const look = memory.filesAt.bind(memory);
    memory.filesAt = async (of, path) => {
      if (path === "/") await late;
      return look(of, path);
    };
    const refreshed = files.open("/");
    await files.open("/etc/hostname");
    expect(files.file?.path).toBe("/etc/hostname");
    answer();
    await refreshed;
    expect(files.file?.path).toBe("/etc/hostname");
  });
});

describe("a folder", () => {
  it("says what failed and shows what is there all the same", async () => {
    const files = new Files(host(), new Tasks(), OF);
    await files.open("/etc");
    const row = files.folder?.rows.find(({ name }) => name === "hostname");
    if (row === undefined) throw new Error("no such row");
    await files.rename(row, "passwd");
    expect(files.failure?.message).toContain("File exists");
    expect(files.folder?.rows.map(({ name }) => name)).toContain("hostname");
  });

  it("in a mount says whose it is, and so does what is in it", async () => {
    const files = new Files(host(), new Tasks(), OF);
    await files.open("/srv");
    expect(outsideWords(files.folder?.outside ?? null, "index.html")).toBe("/home/mara/shop/index.html on this computer");
    await files.open("/srv/index.html");
    expect(files.file?.outside).toEqual({ kind: "host", place: "/home/mara/shop/index.html" });
    await files.close();
    await files.open("/var/lib/data");
    expect(outsideWords(files.folder?.outside ?? null, "orders.db")).toBe("part of the volume shop_data");
    await files.open("/etc");
    expect(outsideWords(files.folder?.outside ?? null, "passwd")).toBe("");
  });

  it("is reached by its crumbs", () => {
    expect(crumbs("/etc/nginx").map(({ path }) => path)).toEqual(["/", "/etc", "/etc/nginx"]);
    expect(crumbs("/")).toHaveLength(1);
  });
});

/** Answers the question that is asked now. */
async function answer(files: Files, yes: boolean) {
  if (files.replacing === null) throw new Error("nothing is asked");
  await files.replace(files.replacing, yes, "web");
}

describe("files that are copied in", () => {
  it("are written over nothing that a person was not asked about", async () => {
    const [memory, tasks] = [host(), new Tasks()];
    const files = new Files(memory, tasks, OF);
    await files.open("/etc");
    const before = (await memory.readFile(OF, "/etc/passwd")).text;
    await files.take(["/home/mara/passwd", "/home/mara/new.txt"], "web");
    expect(files.replacing?.names).toEqual(["passwd"]);
    expect(tasks.list, "nothing happened").toEqual([]);
    expect((await memory.readFile(OF, "/etc/passwd")).text).toBe(before);
    await answer(files, false);
    expect([files.replacing, (await memory.readFile(OF, "/etc/passwd")).text]).toEqual([null, before]);
    await files.take(["/home/mara/passwd"], "web");
    await answer(files, true);
    expect((await memory.readFile(OF, "/etc/passwd")).text).toBe("sent from /home/mara/passwd\n");
    expect(tasks.list.map(({ state, about }) => [state, about.command])).toEqual([["done", "docker cp /home/mara/passwd web:/etc"]]);
  });

  it("are asked about one after another, however many come while a person reads", async () => {
    const memory = host();
    const files = new Files(memory, new Tasks(), OF);
    await files.open("/etc");
    await files.take(["/home/mara/passwd"], "web");
    const first = files.replacing;
    await files.take(["/home/mara/hostname"], "web");
    expect(files.replacing).toBe(first);
    await answer(files, true);
    expect(files.replacing?.names).toEqual(["hostname"]);
    if (first !== null) await files.replace(first, true, "web");
    expect(files.replacing?.names, "an answer counts once").toEqual(["hostname"]);
    const before = (await memory.readFile(OF, "/etc/hostname")).text;
    await answer(files, false);
    expect([files.replacing, (await memory.readFile(OF, "/etc/hostname")).text]).toEqual([null, before]);
    expect((await memory.readFile(OF, "/etc/passwd")).text).toBe("sent from /home/mara/passwd\n");
  });

  it("say what was left out, and are a task that can be cancelled", async () => {
    const tasks = new Tasks();
    const files = new Files(host(), tasks, OF);
    await files.open("/tmp");
    await files.take(["/run/app.sock", "/home/mara/a"], "web");
    expect(files.told).toContain("app.sock");
    expect(files.folder?.rows.map(({ name }) => name)).toEqual(["a"]);
    const taking = files.take(["/home/mara/b"], "web");
    tasks.list[0]?.cancel();
    await taking;
    expect(tasks.list[0]?.state).toBe("cancelled");
    expect(files.folder?.rows.map(({ name }) => name)).toEqual(["a"]);
  });
});

it("what is copied out comes as the command beside it says: a file as it is, a folder as a tar archive", async () => {
  const [memory, tasks] = [host(), new Tasks()];
  const files = new Files(memory, tasks, OF);
  await files.open("/");
  const row = (wanted: string) => {
    const found = files.folder?.rows.find(({ name }) => name === wanted);
    if (found === undefined) throw new Error(`no ${wanted}`);
    return found;
  };
  await files.download(row("etc"), "web");
  expect([files.told, tasks.list[0]?.about.command]).toEqual(["Saved as /home/mara/Downloads/etc.tar", "docker cp web:/etc - > etc.tar"]);
  await files.open("/etc");
  await files.download(row("passwd"), "web");
  expect([files.told, tasks.list[0]?.about.command]).toEqual(["Saved as /home/mara/Downloads/passwd", "docker cp web:/etc/passwd ."]);
});

describe("a volume's files", () => {
  const DATA: FilesOf = { kind: "volume", name: "old-cache" };

  it("are told from those of containers and of other volumes, and have nothing to compare with", async () => {
    const memory = host();
    const files = new Files(memory, new Tasks(), DATA);
    await files.open("/");
    expect(files.folder?.rows.map(({ name, change }) => [name, change])).toEqual([["conf", null], ["orders.db", null]]);
    await files.makeFolder("new");
    expect(files.folder?.rows.map(({ name, change }) => [name, change])).toContainEqual(["new", null]);
    expect((await memory.filesAt(OF, "/")).kind).toBe("folder");
    await expect(memory.filesAt(OF, "/new")).rejects.toThrow("No such file");
    await memory.createVolume("fresh", []);
    const fresh = await memory.filesAt({ kind: "volume", name: "fresh" }, "/");
    expect(fresh.kind === "folder" && fresh.rows).toEqual([]);
    await expect(memory.filesAt({ kind: "volume", name: "gone" }, "/")).rejects.toThrow("no such volume");
  });

  it("show the command that does the same by a container that mounts it", async () => {
    const tasks = new Tasks();
    const files = new Files(host(), tasks, DATA);
    await files.open("/conf");
    await files.take(["/home/mara/a b"], "old-cache");
    expect(tasks.list[0]?.about.command).toBe(
      "docker run --rm --volume old-cache:/volume --volume '/home/mara/a b:/in/a b:ro' alpine cp -a '/in/a b' /volume/conf",
    );
    const row = files.folder?.rows.find(({ name }) => name === "shop.conf");
    if (row === undefined) throw new Error("no such row");
    expect(files.copyFrom(row, "old-cache")).toBe('docker run --rm --volume old-cache:/volume:ro --volume "$PWD":/out alpine cp -a /volume/conf/shop.conf /out');
    await files.open("/");
    const folder = files.folder?.rows.find(({ name }) => name === "conf");
    if (folder === undefined) throw new Error("no such row");
    expect(files.copyFrom(folder, "old-cache")).toBe("docker run --rm --volume old-cache:/volume:ro alpine tar -cf - -C /volume/ conf > conf.tar");
    await files.open("/conf");
    await files.remove(row, "old-cache");
    expect(tasks.list[0]?.about.command).toBe("docker run --rm --volume old-cache:/volume alpine rm -r /volume/conf/shop.conf");
    expect(files.folder?.rows.map(({ name }) => name)).toEqual(["a b"]);
  });
});
