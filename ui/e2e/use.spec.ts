import AxeBuilder from "@axe-core/playwright";
import { expect, type Page, test } from "@playwright/test";

const CONTAINER = "0001".repeat(16);

test("a thousand containers can be searched and stopped together", async ({ page }) => {
  await page.goto("/?containers=1000");
  await expect(page.locator(".item")).toHaveCount(1000);
  await page.keyboard.press("/");
  await page.keyboard.type("shop-66-web");
  const item = page.locator(".item");
  await expect(item).toHaveCount(1);
  await item.getByRole("checkbox").check();
  await page.getByRole("searchbox").fill("shop-65-web");
  await page.locator(".item").getByRole("checkbox").check();
  await expect(page.getByText("2 selected")).toBeVisible();
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await expect(page.locator(".item").getByText("Exited (0)")).toBeVisible();
  await page.getByRole("searchbox").fill("shop-66-web");
  await expect(page.locator(".item").getByText("Exited (0)")).toBeVisible();
});

test("a hundred thousand log lines draw only what is seen, follow their end and can be searched", async ({ page }) => {
  await page.goto(`/?lines=100000#/containers/${CONTAINER}/logs`);
  await expect(page.getByText("100,000 lines")).toBeVisible({ timeout: 30_000 });
  await expect(page.getByText("#99999")).toBeVisible();
  expect(await page.locator(".line").count()).toBeLessThan(120);
  await page.getByRole("log").hover();
  await page.mouse.wheel(0, -5000);
  await expect(page.getByRole("button", { name: "Follow" })).toHaveAttribute("aria-pressed", "false");
  await page.getByLabel("Search", { exact: true }).last().fill("order 7731");
  // At once: what is there is searched, and not followed from its beginning again.
  expect(await page.getByText(/ matches/).textContent()).toContain("14,285 matches");
  await page.getByRole("button", { name: "Context" }).click();
  await expect(page.locator(".line.around").first()).toBeVisible();
  await expect(page.getByText("14,285 matches")).toBeVisible();
  await page.getByRole("button", { name: "Regex" }).click();
  await page.getByLabel("Search", { exact: true }).last().fill("(");
  await expect(page.getByText("not a valid pattern")).toBeVisible();
  await page.getByRole("button", { name: "Save…" }).click();
  await expect(page.getByText(/Saved as \/home\/mara\/.+\.log/)).toBeVisible();
});

test("the command line grows with the form, and what it runs appears in the list", async ({ page }) => {
  await page.goto("/#/containers/new");
  await page.getByLabel("Image").fill("nginx:alpine");
  await page.getByLabel("Name", { exact: true }).fill("site");
  await page.getByLabel("Ports").fill("8000:80");
  await expect(page.getByText("port 8000 is in use by shop-web-1")).toBeVisible();
  await expect(page.getByRole("button", { name: "Run" })).toBeDisabled();
  await page.getByLabel("Ports").fill("9090:80 9091:81 9092:82");
  await expect(page.getByText("docker run --detach --name site --publish 9090:80 --publish 9091:81 --publish 9092:82 nginx:alpine")).toBeVisible();
  await page.getByRole("button", { name: "Run" }).click();
  await expect(page.locator(".item", { hasText: "site" }).first()).toBeVisible();
  await expect(page.getByRole("log")).toBeVisible();
  // The list has room for two, the details for all.
  await expect(page.getByRole("region", { name: "Details of site" }).getByRole("link", { name: "9092:82" })).toBeVisible();
});

test("a preset leaves what was typed to be had again", async ({ page }) => {
  await page.goto("/#/containers/new");
  await page.getByLabel("Image").fill("mine:1");
  await page.getByLabel("Environment").fill("KEY=value");
  await page.getByRole("button", { name: "Redis" }).click();
  await expect(page.getByLabel("Image")).toHaveValue("redis:alpine");
  await expect(page.getByText("What stood here before is kept.")).toBeVisible();
  await page.getByRole("button", { name: "Undo" }).click();
  await expect(page.getByLabel("Image")).toHaveValue("mine:1");
  await expect(page.getByLabel("Environment")).toHaveValue("KEY=value");
  await page.getByLabel("Environment").fill("KEY=value\nno variable");
  await expect(page.getByText("`no variable` is not NAME=value")).toBeVisible();
  await expect(page.getByRole("button", { name: "Run", exact: true })).toBeDisabled();
});

test("the welcome page is opened by one press, and found again without another container", async ({ page }) => {
  await page.addInitScript(() => {
    window.open = (address) => {
      document.documentElement.dataset["opened"] = String(address);
      return null;
    };
  });
  await page.goto("/?containers=0");
  await page.getByRole("button", { name: "Open the welcome page" }).click();
  await expect(page.getByRole("button", { name: "Starting…" })).toBeDisabled();
  const html = page.locator("html");
  await expect(html).toHaveAttribute("data-opened", "http://localhost:32768/");
  await expect(page.getByRole("link", { name: "32768:80" })).toBeVisible();
  await page.keyboard.press("Control+j");
  const drawer = page.getByRole("region", { name: "Tasks", exact: true });
  await expect(drawer.getByRole("heading", { name: "Open the welcome page" })).toBeVisible();
  await expect(drawer.getByTitle(/^docker run --detach --name cove-welcome-page --publish 127\.0\.0\.1::80 alpine/)).toBeVisible();
  await page.evaluate(() => delete document.documentElement.dataset["opened"]);
  await page.keyboard.press("Control+k");
  await page.keyboard.type("welcome page");
  await page.keyboard.press("Enter");
  await expect(html).toHaveAttribute("data-opened", "http://localhost:32768/");
  await expect(page.locator(".item")).toHaveCount(1);
});

test("removing names what is lost and waits for a yes", async ({ page }) => {
  await page.goto("/");
  await page.getByRole("link", { name: /scratch-6/ }).click();
  await page.getByRole("region", { name: "Details of scratch-6" }).getByRole("button", { name: "Remove" }).click();
  await expect(page.getByText("Remove scratch-6? Files written inside are lost")).toBeVisible();
  await page.getByRole("button", { name: "Cancel" }).click();
  await expect(page.getByRole("link", { name: /scratch-6/ })).toBeVisible();
  await page.getByRole("button", { name: "Remove" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
  await expect(page.getByRole("link", { name: /scratch-6/ })).toHaveCount(0);
});

test("a stopped machine can be started where it is missed, and the list comes by itself", async ({ page }) => {
  await page.goto("/?machine=stopped");
  await page.getByRole("button", { name: "Start the machine" }).click();
  await expect(page.getByRole("link", { name: /shop-web-1/ })).toBeVisible();
});

test("what may keep a machine from starting is said where it is started, with what to do", async ({ page, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.goto("/?machine=stopped");
  await expect(page.getByText("the processor shows neither vmx nor svm")).toBeVisible();
  await expect(page.getByText("qemu-system-x86_64")).toHaveCount(0);
  await page.getByRole("button", { name: "Copy what to do" }).click();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toContain("Enable virtualisation in the firmware");
  await page.getByRole("button", { name: "Check again" }).click();
  await expect(page.getByText("the processor shows neither vmx nor svm")).toBeVisible();
});

test("an engine that does not answer is not waited for in silence", async ({ page }) => {
  await page.goto("/?machine=silent");
  await expect(page.getByText("Reading…")).toBeVisible();
  await expect(page.getByText("No answer yet. It shows here as soon as there is one.")).toBeVisible({ timeout: 15_000 });
});

/** Has the engine answer no more, or again. */
async function engine(page: Page, why: { message: string; hint: string; kind?: string } | null) {
  await page.evaluate((why) => {
    window.dispatchEvent(new CustomEvent("cove-engine", { detail: why }));
  }, why);
}

const BROKE = { message: "the connection to the engine broke", hint: "Its log is on the machine's screen." };

for (const [screen, item, button] of [
  ["containers", CONTAINER, "Stop"],
  ["images", "", "Pull"],
  ["volumes", "shop_data", "Back up"],
  ["networks", "", "Create"],
] as const) {
  for (const theme of ["light", "dark"] as const) {
    test(`where the engine is lost, ${screen} say that they are what was last known, until it answers, ${theme}`, async ({ page }) => {
      await page.emulateMedia({ colorScheme: theme });
      await page.goto(`/#/${screen}/${item}`);
      const rows = page.locator(".rows");
      const action = page.getByRole("button", { name: button, exact: true });
      await expect(rows.getByText(/shop/).first()).toBeVisible();
      const known = await rows.getByRole("checkbox").count();
      await expect(action).toBeEnabled();
      await engine(page, BROKE);
      await expect(page.getByText("What shows here is what was last known.")).toBeVisible();
      await expect(page.getByText(BROKE.message)).toBeVisible();
      await expect(rows).toHaveClass(/last-known/);
      await expect(action).toBeDisabled();
      // What was known is still to be read, and found.
      await expect(rows.getByRole("checkbox")).toHaveCount(known);
      await page.keyboard.press("/");
      await page.keyboard.type("nothing-is-called-so");
      await expect(rows.getByText("Nothing matches")).toBeVisible();
      await page.getByRole("searchbox").first().fill("");
      const { violations } = await new AxeBuilder({ page }).analyze();
      expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
      await engine(page, null);
      await expect(page.getByText("what was last known")).toHaveCount(0);
      await expect(rows).not.toHaveClass(/last-known/);
      await expect(action).toBeEnabled();
    });
  }
}

test("the focus that a lost engine takes from a button is where the reason is told, and comes back when it answers", async ({ page }) => {
  await page.goto(`/#/containers/${CONTAINER}`);
  const stop = page.getByRole("button", { name: "Stop", exact: true });
  const notice = page.getByRole("status").filter({ hasText: "The engine does not answer." });
  await stop.focus();
  await engine(page, BROKE);
  await expect(notice).toBeFocused();
  await expect(stop).toBeDisabled();
  await engine(page, null);
  await expect(stop).toBeFocused();
  // Whoever has gone on meanwhile stays where they are.
  await engine(page, BROKE);
  await expect(notice).toBeFocused();
  await page.keyboard.press("/");
  const search = page.getByRole("searchbox").first();
  await expect(search).toBeFocused();
  await engine(page, null);
  await expect(stop).toBeEnabled();
  await expect(search).toBeFocused();
});

test("what the engine would have to do is not offered in the palette while it is lost", async ({ page }) => {
  await page.goto("/");
  await expect(page.getByRole("link", { name: /shop-web-1/ })).toBeVisible();
  await engine(page, BROKE);
  await expect(page.getByText("The engine does not answer.")).toBeVisible();
  await page.keyboard.press("Control+k");
  await page.keyboard.type("shop-web-1");
  await expect(page.getByRole("option", { name: "Logs: shop-web-1" })).toBeVisible();
  await expect(page.getByRole("option", { name: "Stop: shop-web-1" })).toHaveCount(0);
});

test("a lost engine that does answer, but refuses, is not said to be silent", async ({ page }) => {
  await page.goto("/");
  await expect(page.getByRole("link", { name: /shop-web-1/ })).toBeVisible();
  await engine(page, { message: "containerd is not there", hint: "", kind: "engine_refused" });
  await expect(page.getByText("The engine refused it.")).toBeVisible();
  await expect(page.getByText("What shows here is what was last known.")).toBeVisible();
  await expect(page.getByText("The engine does not answer.")).toHaveCount(0);
});

test("a dialog that is open while the engine is lost keeps what was typed, says why it waits, and goes on after", async ({ page }) => {
  await page.goto("/#/volumes");
  await page.getByRole("button", { name: "Create", exact: true }).click();
  const dialog = page.getByRole("dialog");
  const name = dialog.getByLabel("Name", { exact: true });
  await name.fill("kept-so-far");
  await engine(page, BROKE);
  await expect(dialog.getByRole("status")).toHaveText("The engine does not answer.");
  await expect(dialog.getByRole("button", { name: "Create" })).toBeDisabled();
  await name.press("Enter");
  await expect(name).toHaveValue("kept-so-far");
  await engine(page, null);
  await expect(dialog.getByRole("status")).toHaveText("");
  await dialog.getByRole("button", { name: "Create" }).click();
  await expect(dialog).toHaveCount(0);
  await expect(page.getByRole("link", { name: "kept-so-far" })).toBeVisible();
});

test("a new name that is typed while the engine is lost is there when it answers", async ({ page }) => {
  await page.goto(`/#/containers/${CONTAINER}/logs`);
  await page.getByRole("button", { name: "Rename" }).click();
  const dialog = page.getByRole("dialog");
  await engine(page, BROKE);
  await expect(dialog.getByRole("status")).toHaveText("The engine does not answer.");
  await dialog.getByRole("textbox").fill("shop-front");
  await dialog.getByRole("textbox").press("Enter");
  await expect(dialog.getByRole("button", { name: "Rename" })).toBeDisabled();
  await engine(page, null);
  await dialog.getByRole("button", { name: "Rename" }).click();
  await expect(page.getByRole("heading", { name: "shop-front" })).toBeVisible();
});

test("files and a build wait for an engine that is lost", async ({ page }) => {
  await page.goto(`/#/containers/${CONTAINER}/files`);
  const upload = page.getByRole("button", { name: "Upload" });
  await expect(upload).toBeEnabled();
  await engine(page, BROKE);
  await expect(upload).toBeDisabled();
  await page.goto("/#/builds/new");
  await expect(page.getByRole("form", { name: "Build an image" }).getByText("The engine does not answer.")).toBeVisible();
});

for (const [tab, text] of [["Mounts", "/home/mara/shop/nginx.conf"], ["Inspect", "WorkingDir"], ["Files", "Drop files here"]] as const) {
  test(`what ${tab} could not read of a lost engine is read once it answers`, async ({ page }) => {
    await page.goto(`/#/containers/${CONTAINER}/logs`);
    const details = page.getByRole("region", { name: "Details of shop-web-1" });
    await expect(details.getByText("400 lines")).toBeVisible();
    await engine(page, BROKE);
    await details.getByRole("link", { name: tab }).click();
    await expect(details.getByText(BROKE.message)).toBeVisible();
    await engine(page, null);
    await expect(details.getByText(text).first()).toBeVisible();
    await expect(details.getByText(BROKE.message)).toHaveCount(0);
  });
}

test("the palette goes to a container by the keyboard alone", async ({ page }) => {
  await page.goto("/");
  await expect(page.getByRole("link", { name: /blog-db-1/ })).toBeVisible();
  await page.keyboard.press("Control+k");
  await page.keyboard.type("blog-db");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("heading", { name: "blog-db-1" })).toBeVisible();
  await page.keyboard.press("Escape");
  await expect(page.getByRole("heading", { name: "blog-db-1" })).toHaveCount(0);
});

test("the palette gives the focus back to where it was", async ({ page }) => {
  await page.goto("/");
  await page.locator("#search").focus();
  await page.keyboard.press("Control+k");
  await page.keyboard.type("tasks");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("region", { name: "Tasks" })).toBeVisible();
  await expect(page.locator("#search")).toBeFocused();
});

test("the palette does things as well, knows what the engine has, and asks before much ends", async ({ page }) => {
  await page.goto("/");
  await expect(page.getByRole("link", { name: /shop-web-1/ })).toBeVisible();
  await page.keyboard.press("Control+k");
  const palette = page.getByRole("dialog", { name: "Commands" });
  await expect(palette.getByText("Ctrl J", { exact: true })).toHaveCount(0);
  await page.keyboard.type("tasks");
  await expect(palette.getByText("Ctrl J", { exact: true })).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
  await page.getByRole("combobox", { name: "Go to or do…" }).fill("stop shop-web-1");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("region", { name: "Details of shop-web-1" }).getByText("Exited (0)")).toBeVisible();
  await page.keyboard.press("Control+k");
  await page.keyboard.type("shop_data");
  await palette.getByRole("option", { name: /^shop_data/ }).click();
  await expect(page.getByRole("heading", { name: "shop_data" })).toBeVisible();
  await page.keyboard.press("Control+k");
  await page.keyboard.type("stop the machine");
  await page.keyboard.press("Enter");
  await expect(page.getByText(/^Stop the machine\? Running containers stop with it \(\d+\)/)).toBeVisible();
  await page.getByRole("dialog").getByRole("button", { name: "Stop" }).click();
  // What comes of it is told on the machine's screen.
  await expect(page.getByRole("main").getByRole("heading", { name: "The machine is stopped" })).toBeVisible();
  await expect(page.getByRole("heading", { name: "Machine", exact: true })).toBeVisible();
  await page.keyboard.press("Control+k");
  await page.keyboard.type("start the machine");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("heading", { name: "The machine is running" })).toBeVisible();
});

/** Lets folders or files fall on the window, together. */
async function drop(page: Page, ...paths: string[]) {
  // Nobody listens before the window is there.
  await expect(page.getByRole("navigation", { name: "Cove" })).toBeVisible();
  await page.evaluate((paths) => {
    window.dispatchEvent(new CustomEvent("cove-drag", { detail: { kind: "dropped", paths } }));
  }, paths);
}

test("a folder dropped on the window is shared only after a yes, and mounted in the form", async ({ page }) => {
  await page.goto("/");
  await drop(page, "/srv/site");
  await expect(page.getByText("Containers cannot see this folder yet.")).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => violation.id)).toEqual([]);
  await expect(page.getByLabel("Containers may only read")).toBeChecked();
  await page.getByRole("button", { name: "Share and mount" }).click();
  await expect(page.getByText("--mount type=bind,source=/srv/site,target=/mnt/site,readonly")).toBeVisible();
});

test("a folder that is shared already falls into the open form without a question, a second of its name beside it", async ({ page }) => {
  await page.goto("/#/containers/new");
  await page.getByLabel("Image").fill("nginx");
  await drop(page, "/home/mara/site");
  await drop(page, "/home/mara/old/site");
  await expect(page.getByLabel("Folders and volumes")).toHaveValue("/home/mara/site:/mnt/site\n/home/mara/old/site:/mnt/site-2");
  await page.getByRole("checkbox", { name: "/mnt/site-2 read-only" }).check();
  await expect(page.getByLabel("Folders and volumes")).toHaveValue("/home/mara/site:/mnt/site\n/home/mara/old/site:/mnt/site-2:ro");
});

test("of several things that are dropped together each is asked about in turn", async ({ page }) => {
  await page.goto("/");
  await drop(page, "/srv/site", "/srv/media");
  await page.getByRole("dialog", { name: "site" }).getByRole("button", { name: "Share and mount" }).click();
  await page.getByRole("dialog", { name: "media" }).getByRole("button", { name: "Share and mount" }).click();
  await expect(page.getByRole("dialog")).toHaveCount(0);
  await expect(page.getByLabel("Folders and volumes")).toHaveValue("/srv/site:/mnt/site:ro\n/srv/media:/mnt/media:ro");
});

test("a folder that is cancelled while it is being shared is not mounted, and the next one is asked about", async ({ page }) => {
  await page.goto("/");
  await drop(page, "/srv/site", "/srv/media");
  const first = page.getByRole("dialog", { name: "site" });
  await expect(first).toBeVisible();
  // Both are pressed before the host has answered.
  await first.evaluate((dialog) => {
    for (const word of ["Share and mount", "Cancel"]) {
      const button = [...dialog.querySelectorAll("button")].find((one) => one.textContent === word);
      if (button === undefined) throw new Error(`there is no button ${word}`);
      button.click();
    }
  });
  const second = page.getByRole("dialog", { name: "media" });
  await second.getByRole("button", { name: "Cancel" }).click();
  await expect(page.getByRole("dialog")).toHaveCount(0);
  await page.goto("/#/containers/new");
  await expect(page.getByLabel("Folders and volumes")).toHaveValue("");
});

test("of more things than are looked at together it is said how many were taken and how many not", async ({ page }) => {
  await page.goto("/#/containers/new");
  await drop(page, ...Array.from({ length: 23 }, (_, index) => `/home/mara/part-${index}`));
  const mounts = page.getByLabel("Folders and volumes");
  await expect(mounts).toHaveValue(/part-19:/);
  expect((await mounts.inputValue()).split("\n")).toHaveLength(20);
  const toasts = page.getByRole("status");
  await expect(toasts.getByText("20 of 23 were taken, 3 were not.")).toBeVisible();
  await page.getByRole("button", { name: "Show" }).click();
  await expect(page.getByText("Drop the others again, fewer at once")).toBeVisible();
});

test("files are not mounted, and that is said once", async ({ page }) => {
  await page.goto("/");
  await drop(page, "/home/mara/notes.txt", "/home/mara/list.txt");
  const dialog = page.getByRole("dialog");
  await expect(dialog.getByText("Only folders can be mounted.")).toBeVisible();
  await expect(page.getByRole("button", { name: "Mount" })).toHaveCount(0);
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await expect(dialog).toHaveCount(0);
});

test("a second shell is a tab of its own, and leaves the first one as it was", async ({ page }) => {
  await page.goto(`/#/containers/${CONTAINER}/terminal`);
  const screens = page.locator(".xterm-accessibility-tree");
  await expect(screens).toContainText("shop-web-1:/#");
  await page.keyboard.type("echo the first");
  await page.getByRole("button", { name: "New shell" }).click();
  await expect(page.getByRole("button", { name: "Shell 2", exact: true })).toHaveAttribute("aria-pressed", "true");
  await expect(screens).toHaveCount(2);
  await expect(screens.last()).toContainText("shop-web-1:/#");
  await expect(screens.last()).not.toContainText("the first");
  await page.getByRole("button", { name: "Close shell 2" }).click();
  await expect(page.getByRole("button", { name: "Shell 1", exact: true })).toBeFocused();
  await expect(screens).toHaveCount(1);
  await expect(screens).toContainText("echo the first");
});

test("a shell goes on while something else is shown, which is said, until its tab is closed", async ({ page }) => {
  await page.goto(`/#/containers/${CONTAINER}/terminal`);
  const screen = page.locator(".xterm-accessibility-tree");
  const details = page.getByRole("region", { name: "Details of shop-web-1" });
  await expect(screen).toContainText("shop-web-1:/#");
  await page.keyboard.type("echo still");
  await expect(screen).toContainText("echo still");
  await details.getByRole("link", { name: "Logs" }).click();
  await expect(screen).toHaveCount(0);
  await expect(details.getByRole("link", { name: "Terminal (1)", exact: true })).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
  const screens = page.getByRole("navigation", { name: "Cove" });
  await screens.getByRole("link", { name: "Images" }).click();
  await screens.getByRole("link", { name: "Containers" }).click();
  await expect(page.getByText("Shells: 1 ·")).toBeVisible();
  await page.getByRole("link", { name: /shop-web-1/ }).click();
  await details.getByRole("link", { name: "Terminal (1)", exact: true }).click();
  await expect(screen).toContainText("echo still");
  await page.keyboard.type(" there");
  await page.keyboard.press("Enter");
  // The answer, below what was typed.
  await expect(screen).toContainText(/echo still there\s*still there/);
  await details.getByRole("button", { name: "Close shell 1" }).click();
  await expect(page.getByText("No shell is open here.")).toBeVisible();
  await expect(page.getByRole("button", { name: "New shell" })).toBeFocused();
  await expect(page.getByText("Shells: 1 ·")).toHaveCount(0);
  await page.getByRole("button", { name: "New shell" }).click();
  await expect(screen).toContainText("shop-web-1:/#");
  await expect(screen).not.toContainText("still");
});

test("a container without a shell is offered a debug shell beside it, whose command can be copied", async ({ page, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.goto(`/#/containers/${"0002".repeat(16)}/terminal`);
  const screens = page.locator(".xterm-accessibility-tree");
  await expect(screens).toContainText("executable file not found");
  await expect(page.getByText("No shell could be started in this container.")).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
  await page.getByRole("button", { name: "Open a debug shell" }).click();
  await expect(page.getByRole("button", { name: "Debug 1", exact: true })).toHaveAttribute("aria-pressed", "true");
  await expect(screens).toContainText("beside-shop-api-1:/#");
  await expect(page.getByText("below /proc/1/root")).toBeVisible();
  await page.getByRole("button", { name: "Copy command" }).click();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toContain("--pid container:shop-api-1 --network container:shop-api-1");
});

test("a debug shell is opened beside a shell as well", async ({ page }) => {
  await page.goto(`/#/containers/${CONTAINER}/terminal`);
  await page.getByRole("button", { name: "New debug shell" }).click();
  await expect(page.getByRole("button", { name: "Debug 2", exact: true })).toHaveAttribute("aria-pressed", "true");
  await expect(page.locator(".xterm-accessibility-tree").last()).toContainText("beside-shop-web-1:/#");
});

test("a terminal answers, keeps its keys to itself, and can be had again after its end", async ({ page }) => {
  await page.goto(`/#/containers/${CONTAINER}/terminal`);
  const screen = page.locator(".xterm-accessibility-tree");
  await expect(screen).toContainText("shop-web-1:/#");
  await page.keyboard.type("echo forty two");
  await page.keyboard.press("Enter");
  await expect(screen).toContainText("forty two");
  await page.keyboard.press("Control+k");
  await expect(page.getByRole("dialog")).toHaveCount(0);
  await page.reload();
  await expect(screen).toContainText("shop-web-1:/#");
  await page.keyboard.type("exit");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Again" }).click();
  await expect(page.getByText("The shell has ended.")).toHaveCount(0);
  await expect(screen).toContainText("shop-web-1:/#");
});

test("a key leads out of a terminal, and is told there and in the list of shortcuts", async ({ page }) => {
  await page.goto(`/#/containers/${CONTAINER}/terminal`);
  await expect(page.locator(".xterm-accessibility-tree")).toContainText("shop-web-1:/#");
  const input = page.locator(".xterm-helper-textarea");
  await expect(input).toHaveAttribute("aria-label", "Terminal. Ctrl+F6 leads out of it.");
  await page.keyboard.press("Tab");
  await expect(input).toBeFocused();
  await page.keyboard.press("Control+F6");
  await expect(page.getByRole("navigation", { name: "Cove" }).getByRole("link", { name: "Containers" })).toBeFocused();
  await page.keyboard.press("Control+Shift+F6");
  await expect(page.getByRole("region", { name: "Details of shop-web-1" }).getByRole("button", { name: "Copy the command of Terminal" })).toBeFocused();
  await page.keyboard.press("Control+Shift+F6");
  await expect(page.locator("#search")).toBeFocused();
  await page.keyboard.press("F1");
  const list = page.getByRole("dialog", { name: "Shortcuts" });
  await expect(list.getByText("Ctrl F6", { exact: true })).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
  await page.keyboard.press("Escape");
  await expect(list).toHaveCount(0);
  await expect(page.getByRole("heading", { name: "shop-web-1" })).toBeVisible();
});

test("what is selected in a terminal is copied by a key, which ends nothing there", async ({ page, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.goto(`/#/containers/${CONTAINER}/terminal`);
  await expect(page.locator(".xterm-accessibility-tree")).toContainText("shop-web-1:/#");
  // Three clicks select a line.
  await page.locator(".xterm-screen").click({ clickCount: 3, position: { x: 20, y: 8 } });
  await page.keyboard.press("Control+Shift+C");
  await expect.poll(() => page.evaluate(() => navigator.clipboard.readText())).toContain("shop-web-1:/#");
  // Where that fails the shell goes on, and nobody is asked to begin another one.
  await page.evaluate(() => {
    navigator.clipboard.writeText = () => Promise.reject(new Error("denied"));
  });
  await page.keyboard.press("Control+Shift+C");
  await expect(page.getByText("Could not be copied")).toBeVisible();
  await expect(page.getByRole("button", { name: "Again" })).toHaveCount(0);
});

test("a daemon that does not run says why, and is started with the machine", async ({ page }) => {
  await page.goto("/?machine=away");
  await expect(page.getByText("the socket's path is too long")).toBeVisible();
  // Checks would have the daemon started.
  await expect(page.getByText("the processor shows neither vmx nor svm")).toHaveCount(0);
  await page.getByRole("button", { name: "Start the machine" }).click();
  await expect(page.getByRole("link", { name: /shop-web-1/ })).toBeVisible();
});
