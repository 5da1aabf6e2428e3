import AxeBuilder from "@axe-core/playwright";
import { expect, type Page, test } from "@playwright/test";

const row = (page: Page, name: string) => page.locator("tbody tr", { hasText: name });
const dialog = (page: Page) => page.getByRole("dialog");

async function clean(page: Page) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
}

test("a volume is made, filled by a copy, emptied and removed, each with its command or what is lost", async ({ page }) => {
  await page.goto("/#/volumes");
  await expect(row(page, "shop_data").getByText("41 MiB")).toBeVisible();
  await page.getByRole("button", { name: "Create" }).click();
  await page.getByLabel("Name", { exact: true }).fill("shop_data");
  await expect(dialog(page).getByText("`shop_data` is taken")).toBeVisible();
  await page.getByLabel("Name", { exact: true }).fill("fresh");
  await page.getByLabel("Labels").fill("team=shop");
  await expect(dialog(page).getByText("docker volume create --label team=shop fresh")).toBeVisible();
  await clean(page);
  await dialog(page).getByRole("button", { name: "Create" }).click();
  await expect(row(page, "fresh")).toBeVisible();

  await page.getByRole("link", { name: "old-cache" }).click();
  const side = page.getByRole("region", { name: "Details of old-cache" });
  await side.getByRole("button", { name: "Clone" }).click();
  await expect(page.getByLabel("Name", { exact: true })).toHaveValue("old-cache-copy");
  await page.keyboard.press("Enter");
  await expect(row(page, "old-cache-copy").getByText("118 MiB")).toBeVisible();
  await side.getByRole("button", { name: "Empty" }).click();
  await dialog(page).getByRole("button", { name: "Empty" }).click();
  await expect(row(page, "118 MiB")).toHaveCount(1);

  await row(page, "old-cache-copy").getByRole("checkbox").check();
  await row(page, "fresh").getByRole("checkbox").check();
  await page.getByRole("status").getByRole("button", { name: "Remove" }).click();
  await expect(dialog(page).getByText("Remove old-cache-copy, fresh? All files in them are lost (118 MiB).")).toBeVisible();
  await dialog(page).getByRole("button", { name: "Remove" }).click();
  await expect(row(page, "old-cache-copy")).toHaveCount(0);
});

test("copying the command of a dialog does not do what the dialog asks about", async ({ page }) => {
  await page.goto("/#/volumes");
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByLabel("Name", { exact: true }).fill("not-yet");
  const copy = dialog(page).getByRole("button", { name: "Copy command" });
  await copy.click();
  // It has said what came of it.
  await expect(copy).toHaveCount(0);
  await expect(copy).toHaveCount(1);
  await dialog(page).getByRole("button", { name: "Cancel" }).click();
  await expect(row(page, "shop_data").first()).toBeVisible();
  await expect(row(page, "not-yet")).toHaveCount(0);
});

test("a volume in use cannot be removed, and that says who uses it", async ({ page }) => {
  await page.goto("/#/volumes/shop_data");
  await page.getByRole("region", { name: "Details of shop_data" }).getByRole("button", { name: "Remove" }).click();
  await expect(dialog(page).getByText("shop_data cannot be removed, because containers use them: shop-db-1.")).toBeVisible();
  await expect(dialog(page).getByRole("button", { name: "Remove" })).toBeDisabled();
});

test("a volume is backed up and restored under a new name, as tasks", async ({ page }) => {
  await page.goto("/#/volumes/shop_data");
  await page.getByRole("button", { name: "Back up", exact: true }).click();
  await expect(page.getByRole("status").getByText("Back up shop_data")).toBeVisible();
  await page.getByRole("button", { name: "Restore" }).click();
  await page.getByLabel("Name", { exact: true }).fill("shop_data-old");
  await dialog(page).getByRole("button", { name: "Restore" }).click();
  await expect(row(page, "shop_data-old")).toBeVisible();
});

test("a network is made, a container connected and disconnected, and the network removed", async ({ page }) => {
  await page.goto("/#/networks");
  await page.getByRole("button", { name: "Create" }).click();
  await page.getByLabel("Name", { exact: true }).fill("lab");
  await page.getByLabel("Addresses").fill("10.300.0.0/24");
  await expect(dialog(page).getByRole("button", { name: "Create" })).toBeDisabled();
  await page.getByLabel("Addresses").fill("10.30.0.0/24");
  await page.getByLabel("Internal").check();
  await expect(dialog(page).getByText("docker network create --subnet 10.30.0.0/24 --internal lab")).toBeVisible();
  await clean(page);
  await dialog(page).getByRole("button", { name: "Create" }).click();
  await page.getByRole("link", { name: "lab" }).click();
  const side = page.getByRole("region", { name: "Details of lab" });
  await expect(side.getByText("No container is connected.")).toBeVisible();
  await side.getByRole("button", { name: "Connect" }).click();
  await dialog(page).getByRole("combobox").selectOption("shop-web-1");
  await dialog(page).getByRole("button", { name: "Connect" }).click();
  await expect(side.getByRole("link", { name: "shop-web-1" })).toBeVisible();
  await expect(side.getByRole("img", { name: "1 containers in lab" })).toBeVisible();
  await side.getByRole("button", { name: "Remove" }).click();
  await expect(dialog(page).getByText("Disconnect its containers first: shop-web-1.")).toBeVisible();
  await dialog(page).getByRole("button", { name: "Cancel" }).click();
  await side.getByRole("button", { name: "Disconnect shop-web-1" }).click();
  await expect(dialog(page).getByText("does not bring back what it has there: web.")).toBeVisible();
  await dialog(page).getByRole("button", { name: "Disconnect shop-web-1" }).click();
  await expect(side.getByText("No container is connected.")).toBeVisible();
  await page.getByRole("button", { name: "Clear away" }).click();
  await expect(dialog(page).getByText("These go: lab")).toBeVisible();
  await dialog(page).getByRole("button", { name: "Clear away" }).click();
  await expect(row(page, "lab")).toHaveCount(0);
});
