import AxeBuilder from "@axe-core/playwright";
import { expect, test } from "@playwright/test";

test("a setting is shown as it would stand in the file before it is applied, and a wrong one is refused", async ({ page }) => {
  await page.goto("/#/machine/settings");
  const cpus = page.getByLabel("machine.cpus", { exact: true });
  await cpus.fill("many");
  await page.getByRole("button", { name: "Review" }).click();
  await expect(page.getByText('`machine.cpus` cannot be "many"')).toBeVisible();
  await cpus.fill("4");
  await page.getByRole("button", { name: "Review" }).click();
  await expect(page.getByText("+ machine.cpus = 4")).toBeVisible();
  const command = page.getByRole("region", { name: "Changes" }).getByRole("button", { name: "Copy command" });
  await expect(command).toHaveAttribute("title", "cove config set machine.cpus 4");
  await expect(page.getByText("takes effect with the machine's next start")).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
  await page.getByRole("button", { name: "Apply" }).click();
  await expect(page.getByText("The machine heeds the change after a restart.")).toBeVisible();
  await page.reload();
  await page.getByRole("link", { name: "Overview" }).click();
  await expect(page.getByText("Last start")).toBeVisible();
});

test("a setting of a few named values is chosen from these", async ({ page }) => {
  await page.goto("/#/machine/settings");
  const backend = page.getByLabel("machine.backend", { exact: true });
  await backend.selectOption("emulated");
  await expect(backend).toHaveValue("emulated");
  await page.getByRole("button", { name: "Review" }).click();
  await expect(page.getByText("+ machine.backend = emulated")).toBeVisible();
});

test("a machine that was stopped on another screen waits for no restart", async ({ page }) => {
  await page.goto("/#/machine/settings");
  await page.getByLabel("machine.cpus", { exact: true }).fill("4");
  await page.getByRole("button", { name: "Review" }).click();
  await page.getByRole("button", { name: "Apply" }).click();
  await expect(page.getByText("The machine heeds the change after a restart.")).toBeVisible();
  await page.getByRole("link", { name: "Overview" }).click();
  await page.getByRole("button", { name: "Stop the machine" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Stop" }).click();
  await page.getByRole("button", { name: "Start the machine" }).click();
  await expect(page.getByRole("button", { name: "Stop the machine" })).toBeVisible();
  await page.goto("/#/machine/settings");
  await expect(page.getByLabel("machine.cpus", { exact: true })).toHaveValue("4");
  await expect(page.getByText("The machine heeds the change after a restart.")).toHaveCount(0);
});

test("settings that were typed are there when a person comes back", async ({ page }) => {
  await page.goto("/#/machine/settings");
  const cpus = page.getByLabel("machine.cpus", { exact: true });
  await cpus.fill("3");
  await page.getByRole("link", { name: "Containers" }).click();
  await page.getByRole("link", { name: /shop-web-1/ }).click();
  await page.goto("/#/machine/settings");
  await expect(cpus).toHaveValue("3");
  await expect(page.getByRole("region", { name: "Changes" }).getByRole("button", { name: "Review" })).toBeVisible();
});

test("folders and certificates are added and, after a yes, taken away", async ({ page }) => {
  await page.goto("/#/machine/access");
  await page.getByRole("button", { name: "Share a folder…" }).click();
  await expect(page.getByText("/srv/chosen")).toBeVisible();
  await page.getByRole("button", { name: "Stop sharing /srv/chosen" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Stop sharing" }).click();
  await expect(page.getByText("/srv/chosen")).toHaveCount(0);
  await page.getByRole("button", { name: /^Stop trusting CN=Mara/ }).click();
  await expect(page.getByText("Registries with certificates of this authority")).toBeVisible();
  await page.getByRole("dialog").getByRole("button", { name: "Stop trusting" }).click();
  await expect(page.getByText("Mara Ltd")).toHaveCount(0);
});

test("each log of the machine can be read", async ({ page }) => {
  await page.goto("/#/machine/logs");
  await expect(page.getByText("engine: line 59")).toBeVisible();
  await page.getByRole("button", { name: "console" }).click();
  await expect(page.getByText("console: line 59")).toBeVisible();
});

test("a shell of the machine answers while it runs, and can be had again after its end", async ({ page }) => {
  await page.goto("/#/machine/terminal");
  const screen = page.locator(".xterm-accessibility-tree");
  await expect(screen).toContainText("cove:~#");
  await page.keyboard.type("echo forty two");
  await page.keyboard.press("Enter");
  await expect(screen).toContainText("forty two");
  await page.keyboard.type("exit");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Again" }).click();
  await expect(page.getByText("The shell has ended.")).toHaveCount(0);
  await expect(screen).toContainText("cove:~#");
  await page.goto("/?machine=stopped#/machine/terminal");
  await expect(page.getByText("It shows while the machine runs.")).toBeVisible();
});

test("a machine is created, shown with what is its own, left again and deleted once its name is typed", async ({ page }) => {
  await page.goto("/#/machine/machines");
  await page.getByRole("button", { name: "Create a machine…" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name", { exact: true }).fill("build");
  await dialog.getByLabel("Virtual CPUs").fill("4");
  await expect(dialog.getByText("cove machine create build --cpus 4")).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
  await dialog.getByRole("button", { name: "Create" }).click();
  await page.getByRole("button", { name: "Show build" }).click();
  await expect(page.getByText("build · stopped").first()).toBeVisible();
  await expect(page.getByRole("button", { name: "Show default" })).toBeVisible();
  await page.getByRole("link", { name: "Containers" }).click();
  // The same in a terminal is about this machine as well, and not about the usual one.
  await expect(page.getByText("cove start --machine build", { exact: true })).toBeVisible();
  await page.getByRole("button", { name: "Start the machine" }).click();
  await expect(page.getByText("No containers yet")).toBeVisible();
  await page.goto("/#/machine/machines");
  await page.getByRole("button", { name: "Stop the machine" }).click();
  await expect(page.getByText("build · stopped").first()).toBeVisible();
  await page.getByRole("button", { name: "Show default" }).click();
  await page.getByRole("button", { name: "Delete build" }).click();
  await expect(dialog.getByText("All containers, images and volumes of build are lost")).toBeVisible();
  const yes = dialog.getByRole("button", { name: "Delete", exact: true });
  await dialog.getByLabel("Its name, to confirm").fill("buil");
  await expect(yes).toBeDisabled();
  await dialog.getByLabel("Its name, to confirm").fill("build");
  await yes.click();
  await expect(page.getByRole("button", { name: "Show build" })).toHaveCount(0);
  await page.getByRole("link", { name: "Containers" }).click();
  await expect(page.getByRole("link", { name: /shop-web-1/ })).toBeVisible();
});

test("diagnostics are shown with secrets masked before they are saved, with and without a daemon", async ({ page }) => {
  await page.goto("/#/machine");
  await page.getByRole("link", { name: "Diagnostics" }).click();
  await expect(page.getByText('"proxy.http": "http://********@proxy.example:3128"')).toBeVisible();
  await expect(page.getByText("Saved as")).toHaveCount(0);
  await page.getByRole("button", { name: "Save…" }).click();
  await expect(page.getByText("Saved as /home/mara/cove-diagnostics.txt")).toBeVisible();
  await page.getByRole("button", { name: "Gather anew" }).click();
  await expect(page.getByText("Saved as")).toHaveCount(0);
  await page.goto("/?machine=away#/machine/diagnostics");
  await expect(page.getByText("daemon none: the daemon did not start")).toBeVisible();
});

for (const theme of ["light", "dark"] as const) {
  test(`disk space is given back, and says how much before and after, ${theme}`, async ({ page }) => {
    await page.emulateMedia({ colorScheme: theme });
    await page.goto("/#/machine");
    await expect(page.getByText("Up to 717 MiB may come back to this computer.")).toBeVisible();
    await expect(page.getByText("2.5 GiB used, 3.2 GiB on this computer, 64 GiB at most")).toBeVisible();
    await page.getByRole("button", { name: "Give back" }).click();
    await expect(page.getByRole("button", { name: "Giving back…" })).toBeDisabled();
    await expect(page.getByText("It took 3.2 GiB, and takes 2.6 GiB now.")).toBeVisible();
    await expect(page.getByText("Up to 104 MiB may come back to this computer.")).toBeVisible();
    const { violations } = await new AxeBuilder({ page }).analyze();
    expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
  });
}

test("images are cleared away from the machine's screen only after their names were shown", async ({ page }) => {
  await page.goto("/#/machine");
  await page.getByRole("button", { name: "Clear away images…" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("radio", { name: /^That no container was made from/ }).check();
  await expect(dialog.getByText(/^These go: .*python:3.14-slim/)).toBeVisible();
  await dialog.getByRole("button", { name: "Clear away" }).click();
  await expect(dialog).toHaveCount(0);
  await page.getByRole("link", { name: "Images" }).click();
  await expect(page.getByText("postgres:17").first()).toBeVisible();
  await expect(page.getByText("python:3.14-slim")).toHaveCount(0);
});

test("light or dark is chosen against the desktop's, and remembered", async ({ page }) => {
  await page.emulateMedia({ colorScheme: "light" });
  await page.goto("/#/machine/settings");
  const main = page.locator("main");
  await expect(main).toHaveCSS("background-color", "rgb(255, 255, 255)");
  await page.getByLabel("Appearance").selectOption("Dark");
  await expect(main).toHaveCSS("background-color", "rgb(30, 33, 37)");
  await page.reload();
  await expect(page.getByLabel("Appearance")).toHaveValue("dark");
  await expect(main).toHaveCSS("background-color", "rgb(30, 33, 37)");
  await page.getByLabel("Appearance").selectOption("As the desktop");
  await expect(main).toHaveCSS("background-color", "rgb(255, 255, 255)");
});

test("shortcuts of a single character are turned off, which the list of shortcuts says and the next start remembers", async ({ page }) => {
  await page.goto("/#/machine/settings");
  const box = page.getByRole("checkbox", { name: "Shortcuts of a single character" });
  await expect(box).toBeChecked();
  await box.uncheck();
  await page.reload();
  await expect(box).not.toBeChecked();
  await page.keyboard.press("F1");
  await expect(page.getByRole("dialog", { name: "Shortcuts" }).getByText("(turned off in the window's settings)")).toBeVisible();
  await page.keyboard.press("Escape");
  await page.getByRole("link", { name: "Volumes" }).click();
  const search = page.getByRole("searchbox");
  await expect(search).toHaveAttribute("placeholder", "Search");
  await page.keyboard.press("/");
  await expect(search).not.toBeFocused();
  await page.getByRole("link", { name: "Machine", exact: true }).click();
  await page.getByRole("link", { name: "Settings" }).click();
  await box.check();
  await page.getByRole("link", { name: "Volumes" }).click();
  await expect(search).toHaveAttribute("placeholder", "Search  /");
  await page.keyboard.press("/");
  await expect(search).toBeFocused();
});

test("a machine that was shown last and is gone leaves the usual one", async ({ page }) => {
  await page.goto("/#/machine/machines");
  await page.getByRole("button", { name: "Create a machine…" }).click();
  await page.getByRole("dialog").getByLabel("Name", { exact: true }).fill("build");
  await page.getByRole("dialog").getByRole("button", { name: "Create" }).click();
  await page.getByRole("button", { name: "Show build" }).click();
  await expect(page.getByRole("button", { name: "Show default" })).toBeVisible();
  expect(await page.evaluate(() => localStorage.getItem("cove.machine"))).toBe("build");
  // The host in memory begins anew with the page, and knows one machine.
  await page.reload();
  await expect(page.getByText("default · running").first()).toBeVisible();
  expect(await page.evaluate(() => localStorage.getItem("cove.machine"))).toBeNull();
});

test("Cove opens with the session once a person asks for it", async ({ page }) => {
  await page.goto("/#/machine/settings");
  const box = page.getByRole("checkbox", { name: "Open Cove when I log in" });
  await expect(box).not.toBeChecked();
  await box.check();
  await page.getByRole("link", { name: "Overview" }).click();
  await page.getByRole("link", { name: "Settings" }).click();
  await expect(box).toBeChecked();
  await box.uncheck();
  await expect(box).not.toBeChecked();
});

test("a machine that is paused is resumed, or stopped, on its screen and by the palette", async ({ page }) => {
  const header = page.getByRole("main").locator("header");
  const palette = page.getByRole("dialog", { name: "Commands" });
  await page.goto("/?machine=paused#/machine");
  await expect(page.getByRole("heading", { name: "The machine is paused" })).toBeVisible();
  await header.getByRole("button", { name: "Stop the machine" }).click();
  await expect(page.getByRole("heading", { name: "The machine is stopped" })).toBeVisible();
  await page.reload();
  await header.getByRole("button", { name: "Resume the machine" }).click();
  await expect(page.getByRole("heading", { name: "The machine is running" })).toBeVisible();
  await page.reload();
  await expect(page.getByRole("heading", { name: "The machine is paused" })).toBeVisible();
  await page.keyboard.press("Control+k");
  await page.keyboard.type("the machine");
  await expect(palette.getByRole("option", { name: /^Stop the machine/ })).toBeVisible();
  await palette.getByRole("option", { name: /^Resume the machine/ }).click();
  await expect(page.getByRole("heading", { name: "The machine is running" })).toBeVisible();
});
