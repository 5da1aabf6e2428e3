import AxeBuilder from "@axe-core/playwright";
import { expect, test } from "@playwright/test";

const CONTAINER = "0001".repeat(16);

test("removing several at once names those that run and the volumes that go with them", async ({ page }) => {
  await page.goto("/");
  await page.getByRole("searchbox").fill("shop-");
  await page.locator(".item").first().getByRole("checkbox").check();
  await page.getByRole("button", { name: "Select all 5" }).click();
  await page.getByRole("button", { name: "Remove", exact: true }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog.getByText(/^Remove shop-.*\?/)).toBeVisible();
  await expect(dialog.getByText(/Still running, and killed: .*shop-web-1/)).toBeVisible();
  await expect(dialog.getByText("shop-cache-1:/data")).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => violation.id)).toEqual([]);
  await dialog.getByRole("button", { name: "Remove 5" }).click();
  await expect(page.getByText("Nothing matches")).toBeVisible();
  await expect(page.getByRole("status").getByText("Remove: 5 containers")).toBeVisible();
});

test("several are paused, resumed and killed together, and the tasks say how each fared", async ({ page }) => {
  await page.goto("/");
  await page.getByRole("searchbox").fill("shop-");
  await page.locator(".item").first().getByRole("checkbox").check();
  await page.getByRole("button", { name: "Select all 5" }).click();
  const bulk = page.locator(".bulk");
  await bulk.getByRole("button", { name: "Pause" }).click();
  await expect(page.locator(".item").getByText("(Paused)")).toHaveCount(5);
  await expect(bulk.getByRole("button", { name: "Pause" })).toHaveCount(0);
  await bulk.getByRole("button", { name: "Resume" }).click();
  await expect(page.locator(".item").getByText("(Paused)")).toHaveCount(0);

  await bulk.getByRole("button", { name: "Kill" }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog.getByText(/^Kill shop-.*\? They are not asked to end/)).toBeVisible();
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await expect(page.locator(".item").getByText("Exited (137)")).toHaveCount(0);
  await bulk.getByRole("button", { name: "Kill" }).click();
  await dialog.getByRole("button", { name: "Kill" }).click();
  await expect(page.locator(".item").getByText("Exited (137)")).toHaveCount(5);

  await page.keyboard.press("Control+j");
  const drawer = page.getByRole("region", { name: "Tasks", exact: true });
  for (const action of ["Pause", "Resume", "Kill"]) await expect(drawer.getByRole("button", { name: `${action}: 5 containers` })).toBeVisible();
  const parts = drawer.getByRole("region", { name: "Parts" });
  await expect(parts.getByText("shop-web-1")).toBeVisible();
  await expect(parts.getByText("done")).toHaveCount(5);
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => violation.id)).toEqual([]);
});

test("a container is renamed, and a name that is taken is said to be", async ({ page }) => {
  await page.goto(`/#/containers/${CONTAINER}/logs`);
  await page.getByRole("button", { name: "Rename" }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog.getByRole("button", { name: "Rename" })).toBeDisabled();
  await dialog.getByRole("textbox").fill("shop-db-1");
  await dialog.getByRole("button", { name: "Rename" }).click();
  await expect(page.getByText("the name `shop-db-1` is in use")).toBeVisible();
  await page.getByRole("button", { name: "Rename" }).click();
  await page.getByRole("dialog").getByRole("textbox").fill("front");
  await page.getByRole("dialog").getByRole("button", { name: "Rename" }).click();
  await expect(page.getByRole("heading", { name: "front" })).toBeVisible();
  await page.getByRole("status").getByRole("button", { name: "Undo" }).click();
  await expect(page.getByRole("heading", { name: "shop-web-1" })).toBeVisible();
});

test.describe("in German", () => {
  test.use({ locale: "de-DE" });

  test("how containers are is said in the window's language", async ({ page }) => {
    await page.goto("/");
    await expect(page.getByText("Läuft seit 4 Stunden · gesund").first()).toBeVisible();
    await expect(page.getByText(/^Up \d/)).toHaveCount(0);
  });

  test("what the engine says stands below what kind of failure it is, in the window's language", async ({ page }) => {
    await page.goto(`/#/containers/${CONTAINER}/logs`);
    await page.getByRole("button", { name: "Umbenennen" }).click();
    await page.getByRole("dialog").getByRole("textbox").fill("shop-db-1");
    await page.getByRole("dialog").getByRole("button", { name: "Umbenennen" }).click();
    await expect(page.getByText("Etwas anderes steht im Weg.")).toBeVisible();
    await expect(page.getByText("the name `shop-db-1` is in use")).toBeVisible();
  });
});

test("what undoes a change stays while the keyboard is on it, and goes by itself otherwise", async ({ page }) => {
  await page.clock.install();
  await page.goto(`/#/containers/${CONTAINER}/logs`);
  await page.getByRole("button", { name: "Rename" }).click();
  await page.getByRole("dialog").getByRole("textbox").fill("front");
  await page.getByRole("dialog").getByRole("button", { name: "Rename" }).click();
  const undo = page.getByRole("status").getByRole("button", { name: "Undo" });
  await undo.focus();
  await page.clock.runFor("00:30");
  await expect(undo).toBeVisible();
  await page.locator("#search").focus();
  await page.clock.runFor("00:30");
  await expect(undo).toHaveCount(0);
});

test("what the engine knows is searched as a tree, and read as JSON", async ({ page }) => {
  await page.goto(`/#/containers/${CONTAINER}/inspect`);
  await expect(page.getByText("WorkingDir")).toBeVisible();
  await page.getByRole("searchbox", { name: "Search keys and values" }).fill("utc");
  await expect(page.getByText('"TZ=UTC"')).toBeVisible();
  await expect(page.getByText("WorkingDir")).toHaveCount(0);
  await page.getByRole("button", { name: "JSON" }).click();
  await expect(page.locator("pre").getByText("WorkingDir")).toBeVisible();
});

test("an image is made of a container, and the run command copied", async ({ page, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.goto(`/#/containers/${CONTAINER}/logs`);
  await page.getByRole("button", { name: "Commit" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Commit" }).click();
  await expect(page.getByRole("status").getByText("Commit shop-web-1 as shop-web-1:latest · done")).toBeVisible();
  await page.getByRole("button", { name: "Copy run" }).click();
  await expect(page.getByText("Copied: docker run --detach --name shop-web-1")).toBeVisible();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toContain("--publish 8000:80");
});
