import { describe, expect, it } from "vitest";
import { MemoryHost } from "../host/memory";
import { crumbs, endingsOf, Files, OpenFile } from "./files.svelte";

const ID = "0001".repeat(16);
const host = () => new MemoryHost({ containers: 1, lines: 0, machine: "running" });

describe("a file that is open", () => {
  it("is not saved over what another wrote meanwhile, but by force", async () => {
    const memory = host();
    const path = "/etc/hostname";
    const { text, revision } = await memory.readFile(ID, path);
    const file = new OpenFile(path, text, revision);
    await memory.writeFile(ID, path, "theirs, and longer\n", null);
    file.text = "ours\n";
    await file.save(memory, ID);
    expect([file.conflict, file.changed]).toEqual([true, true]);
    expect((await memory.readFile(ID, path)).text).toBe("theirs, and longer\n");
    await file.save(memory, ID, true);
    expect([file.conflict, file.changed]).toEqual([false, false]);
    expect((await memory.readFile(ID, path)).text).toBe("ours\n");
  });

  it("keeps how its lines end", async () => {
    const memory = host();
    await memory.writeFile(ID, "/etc/hostname", "one\r\ntwo\r\n", null);
    const { text, revision } = await memory.readFile(ID, "/etc/hostname");
    const file = new OpenFile("/etc/hostname", text, revision);
    expect(file.changed).toBe(false);
    file.text = `${file.text}three\n`;
    await file.save(memory, ID);
    expect((await memory.readFile(ID, "/etc/hostname")).text).toBe("one\r\ntwo\r\nthree\r\n");
  });

  it("of mixed endings is told from the others", () => {
    expect(["", "a\nb\n", "a\r\nb\r\n", "a\r\nb\n", "a\rb"].map(endingsOf)).toEqual(["lf", "lf", "crlf", "mixed", "mixed"]);
  });
});

describe("what is open", () => {
  it("stays when a folder that was asked for before answers after it", async () => {
    const memory = host();
    const files = new Files(memory, ID);
    await files.open("/");
    let answer = () => {};
    const late = new Promise<void>((done) => (answer = done));
    const look = memory.filesAt.bind(memory);
    memory.filesAt = async (id, path) => {
      if (path === "/") await late;
      return look(id, path);
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
    const files = new Files(host(), ID);
    await files.open("/etc");
    const row = files.folder?.rows.find(({ name }) => name === "hostname");
    if (row === undefined) throw new Error("no such row");
    await files.rename(row, "passwd");
    expect(files.failure?.message).toContain("File exists");
    expect(files.folder?.rows.map(({ name }) => name)).toContain("hostname");
  });

  it("is reached by its crumbs", () => {
    expect(crumbs("/etc/nginx").map(({ path }) => path)).toEqual(["/", "/etc", "/etc/nginx"]);
    expect(crumbs("/")).toHaveLength(1);
  });
});
