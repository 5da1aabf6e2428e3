import AxeBuilder from "@axe-core/playwright";
import { expect, type Page, test } from "@playwright/test";

async function run(page: Page, image: string) {
  await page.goto("/#/containers/new");
  await page.getByLabel("Image").fill(image);
  await page.getByRole("button", { name: "Run", exact: true }).click();
}

test("a pull goes on when its form is left, shows its layers in the drawer, and its end is told without taking the focus", async ({ page }) => {
  await run(page, "busybox:1.37");
  await page.getByRole("link", { name: "Networks" }).click();
  await page.keyboard.press("Control+j");
  const drawer = page.getByRole("region", { name: "Tasks", exact: true });
  await expect(drawer.getByText("Downloading").first()).toBeVisible();
  await page.keyboard.press("Control+j");
  const search = page.getByRole("searchbox");
  await search.focus();
  await expect(page.getByRole("status").getByText("Run busybox:1.37")).toBeVisible();
  await expect(search).toBeFocused();
  await expect(page).toHaveURL(/networks/);
  await page.getByRole("status").getByRole("button", { name: "Show" }).click();
  await expect(drawer.getByText("Pull complete").first()).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => violation.id)).toEqual([]);
  await page.getByRole("link", { name: "Containers" }).click();
  await expect(page.locator(".item", { hasText: "busybox:1.37" })).toBeVisible();
});

test("a cancelled pull runs nothing, and the form can be tried again", async ({ page }) => {
  await run(page, "busybox:1.37");
  await page.getByRole("button", { name: "Cancel" }).click();
  await expect(page.getByRole("button", { name: "Run", exact: true })).toBeEnabled();
  await expect(page.locator(".item", { hasText: "busybox" })).toHaveCount(0);
  await page.keyboard.press("Control+j");
  await expect(page.getByRole("region", { name: "Tasks", exact: true }).getByText("cancelled").first()).toBeVisible();
});

test("a start of the machine is a task with its stages; cancelling it stops the machine, which cannot be cancelled", async ({ page }) => {
  await page.goto("/?machine=slow");
  await page.getByRole("button", { name: "Start the machine" }).click();
  await page.keyboard.press("Control+j");
  const drawer = page.getByRole("region", { name: "Tasks", exact: true });
  await expect(drawer.getByRole("heading", { name: "Start machine default" })).toBeVisible();
  await expect(drawer.getByText("Booting the kernel")).toBeVisible();
  await expect(drawer.getByText("Cancelling it stops the machine.")).toBeVisible();
  await expect(drawer.getByRole("button", { name: "Copy command" })).toHaveAttribute("title", "cove start");
  const cancel = drawer.getByRole("button", { name: "Cancel", exact: true });
  await cancel.click();
  await expect(drawer.getByText("A stop cannot be cancelled.")).toBeVisible();
  await expect(cancel).toHaveCount(0);
  await expect(drawer.getByRole("button", { name: /^Start machine default/ })).toContainText("cancelled");
  await expect(drawer.getByRole("button", { name: /^Stop machine default/ })).toContainText("done", { timeout: 15_000 });
  await expect(page.getByRole("main").getByRole("heading", { name: "The machine is stopped" })).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => violation.id)).toEqual([]);
});

test("a restart of the machine is one task, whose end is told on any screen", async ({ page }) => {
  await page.goto("/#/machine/settings");
  await page.getByLabel("machine.cpus", { exact: true }).fill("4");
  await page.getByRole("button", { name: "Review" }).click();
  await page.getByRole("button", { name: "Apply" }).click();
  await page.getByRole("button", { name: "Restart the machine" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Restart the machine" }).click();
  await page.getByRole("link", { name: "Registries" }).click();
  const told = page.getByRole("status");
  await expect(told.getByText("Restart machine default")).toBeVisible();
  await told.getByRole("button", { name: "Show" }).click();
  const drawer = page.getByRole("region", { name: "Tasks", exact: true });
  await expect(drawer.getByRole("listitem")).toHaveCount(1);
  await expect(drawer.getByRole("button", { name: "Copy command" })).toHaveAttribute("title", "cove restart");
  await page.getByRole("link", { name: "Machine", exact: true }).click();
  await page.getByRole("link", { name: "Settings" }).click();
  await expect(page.getByText("The machine heeds the change after a restart.")).toHaveCount(0);
});

test("giving disk space back is a task that cannot be cancelled and goes on when its screen is left; its end is told", async ({ page }) => {
  await page.goto("/#/machine");
  await expect(page.getByRole("button", { name: "Give back" })).toBeVisible();
  await page.keyboard.press("Control+j");
  const drawer = page.getByRole("region", { name: "Tasks", exact: true });
  await page.getByRole("button", { name: "Give back" }).click();
  await expect(drawer).toContainText(/The machine discards what it does not use of its disk[^]*cannot be cancelled/);
  await expect(drawer.getByRole("button", { name: "Cancel", exact: true })).toHaveCount(0);
  await expect(drawer.getByRole("heading", { name: "Give disk space of machine default back" })).toBeVisible();
  await expect(drawer.getByRole("button", { name: "Copy command" })).toHaveAttribute("title", "cove machine reclaim");
  await expect(drawer.getByText("It took 3.2 GiB, and takes 2.6 GiB now.")).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => violation.id)).toEqual([]);
  await page.keyboard.press("Control+j");
  await page.getByRole("button", { name: "Give back" }).click();
  await page.getByRole("link", { name: "Registries" }).click();
  await expect(page.getByRole("status").getByText("Give disk space of machine default back")).toBeVisible();
  await page.getByRole("link", { name: "Machine", exact: true }).click();
  await expect(page.getByText("It took 2.6 GiB, and takes 2.6 GiB now.")).toBeVisible();
});

test("what the tray or a terminal has the machine do is a task, whose cancel stops a start", async ({ page }) => {
  const others = (act: string) => page.evaluate((detail) => void window.dispatchEvent(new CustomEvent("cove-machine", { detail })), act);
  await page.goto("/?machine=slow");
  await expect(page.getByRole("heading", { name: "The machine is stopped" })).toBeVisible();
  await page.keyboard.press("Control+j");
  const drawer = page.getByRole("region", { name: "Tasks", exact: true });
  await others("start");
  await expect(drawer.getByRole("heading", { name: "Start machine default" })).toBeVisible();
  await expect(drawer.getByText("Cancelling it stops the machine.")).toBeVisible();
  await drawer.getByRole("button", { name: "Cancel", exact: true }).click();
  await expect(drawer.getByRole("button", { name: /^Start machine default/ })).toContainText("cancelled");
  await expect(drawer.getByRole("button", { name: /^Stop machine default/ })).toContainText("done", { timeout: 15_000 });
  await expect(drawer.getByRole("listitem")).toHaveCount(2);
  await page.goto("/#/images");
  await expect(page.getByText("postgres:17").first()).toBeVisible();
  await others("stop");
  await expect(page.getByRole("status").getByText("Stop machine default")).toBeVisible();
});

test("what was chosen in the tray and failed is told with its reason", async ({ page }) => {
  await page.goto("/#/images");
  await expect(page.getByRole("heading", { name: "Images" })).toBeVisible();
  const failure = { message: "driver failed programming external connectivity", hint: "Stop what uses the port.", kind: "engine_refused" };
  await page.evaluate((detail) => window.dispatchEvent(new CustomEvent("cove-tray", { detail })), { title: "Restart: shop-web-1", failure });
  const toasts = page.getByRole("status");
  await expect(toasts.getByText("Restart: shop-web-1 · failed")).toBeVisible();
  await expect(toasts.getByText("The engine refused it.")).toBeVisible();
  await expect(toasts.getByText("driver failed programming external connectivity")).toBeVisible();
});
