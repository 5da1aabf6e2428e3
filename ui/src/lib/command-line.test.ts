import { describe, expect, it } from "vitest";
import { composeCommand, debugCommand, ofMachine, quote, readEnvironment, runCommand, splitWords, unclosedQuote, unreadVariables, viewCommand } from "./command-line";
import type { RunSpec } from "./host";

const plain: RunSpec = {
  image: "nginx",
  name: "",
  command: [],
  environment: [],
  ports: [],
  mounts: [],
  network: "",
  memory: null,
  processors: null,
  restart: "no",
  remove: false,
};

describe("the command line", () => {
  it("is short where nothing was asked for", () => {
    expect(runCommand(plain)).toBe("docker run --detach nginx");
  });

  it("says everything that was asked for, in docker's own words", () => {
    const line = runCommand({
      ...plain,
      name: "site",
      restart: "unless-stopped",
      ports: [
        { address: "", host: 8080, container: 80, protocol: "tcp" },
        { address: "", host: 53, container: 53, protocol: "udp" },
        { address: "127.0.0.1", host: 0, container: 443, protocol: "tcp" },
        { address: "", host: 0, container: 25, protocol: "tcp" },
      ],
      mounts: [{ source: "/home/mara/my site", target: "/srv", readOnly: true }],
      environment: [{ name: "MOTD", value: "it's on" }],
      command: ["sh", "-c", "echo $HOME"],
    });
    expect(line).toBe(
      "docker run --detach --name site --restart unless-stopped --publish 8080:80 --publish 53:53/udp " +
        "--publish 127.0.0.1::443 --publish 25 " +
        "--mount 'type=bind,source=/home/mara/my site,target=/srv,readonly' --env 'MOTD=it'\\''s on' " +
        "nginx sh -c 'echo $HOME'",
    );
  });

  it("says limits in the units that docker reads", () => {
    const line = runCommand({ ...plain, network: "shop_default", memory: 1536, processors: 1500 });
    expect(line).toBe("docker run --detach --network shop_default --memory 1536m --cpus 1.5 nginx");
  });

  it("keeps a folder with a comma in one field", () => {
    const line = runCommand({ ...plain, mounts: [{ source: "/a,b", target: "/x", readOnly: false }] });
    expect(line).toContain(`'type=bind,"source=/a,b",target=/x'`);
  });

  it("writes what a terminal would act upon in numbers", () => {
    expect(quote("two\nlines")).toBe("'two\nlines'");
    expect(quote("it's\u0003\nreboot")).toBe("$'it\\'s\\003\\012reboot'");
    expect(quote("\u009b201~")).toBe("$'\\302\\233201~'");
  });

  it("quotes the empty word", () => {
    expect(quote("")).toBe("''");
  });
});

it("makes a debug shell beside the container that it is for", () => {
  expect(debugCommand("web")).toBe(
    "docker run --rm --interactive --tty --pid container:web --network container:web --cap-add SYS_PTRACE alpine sh",
  );
});

it("names a project by its folder and files where compose reads them, and else by its name", () => {
  const project = { name: "shop", folder: "/home/mara/my shop", files: ["/home/mara/my shop/compose.yaml", "/home/mara/my shop/dev.yaml"] };
  const named = "docker compose --project-name=shop";
  const read = `${named} '--project-directory=/home/mara/my shop' '--file=/home/mara/my shop/compose.yaml' '--file=/home/mara/my shop/dev.yaml'`;
  expect(composeCommand(project, "up")).toBe(`${read} up --detach`);
  expect(composeCommand(project, "down")).toBe(`${read} down`);
  expect(composeCommand(project, "restart")).toBe(`${named} restart`);
  expect(composeCommand({ ...project, folder: null }, "down")).toBe(`${named} down`);
  expect(composeCommand({ ...project, files: [] }, "down")).toBe(`${named} down`);
});

it("reads a pasted .env with comments, exports and quotes", () => {
  expect(readEnvironment("# x\nexport A=1\nB=\"two words\"\n\nnot a line\nC='d=e'\r\nD=")).toEqual([
    { name: "A", value: "1" },
    { name: "B", value: "two words" },
    { name: "C", value: "d=e" },
    { name: "D", value: "" },
  ]);
});

it("says which lines of a pasted .env it cannot read, and takes every name that the engine takes", () => {
  const text = "# x\n\n  # y\nspring.port=1\nKEY='-----BEGIN\nMIIB\n-----END'\nHOME\n=x";
  expect(unreadVariables(text)).toEqual(["MIIB", "-----END'", "HOME", "=x"]);
  expect(readEnvironment(text).map((variable) => variable.name)).toEqual(["spring.port", "KEY"]);
});

it("splits a command like a shell and expands nothing", () => {
  expect(splitWords(`sh -c "echo $X" --name='a b'`)).toEqual(["sh", "-c", "echo $X", "--name=a b"]);
});

it("knows a quote that nothing closes", () => {
  expect(["sh -c 'echo", `echo "it's"`, "it's", `'a' "b"`, ""].map(unclosedQuote)).toEqual([true, false, true, false, false]);
});

it("names the machine that is shown, unless it is the usual one or none is known", () => {
  expect(ofMachine("cove shell", { name: "build" })).toBe("cove shell --machine build");
  expect(ofMachine("cove shell", { name: "default" })).toBe("cove shell");
  expect(ofMachine("cove shell", null)).toBe("cove shell");
});

it("a view of a container has the command that tells the same, where there is one", () => {
  const views = ["logs", "terminal", "stats", "processes", "inspect", "files"];
  expect(views.map((view) => viewCommand(view, "web 1"))).toEqual([
    "docker logs --follow 'web 1'",
    "docker exec --interactive --tty 'web 1' sh",
    "docker stats 'web 1'",
    "docker top 'web 1'",
    "docker inspect 'web 1'",
    "",
  ]);
});
