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
