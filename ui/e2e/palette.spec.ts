import { expect, type Page, test } from "@playwright/test";

async function choose(page: Page, words: string, entry: string) {
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox", { name: "Go to or do…" }).fill(words);
  await page.getByRole("option", { name: entry }).first().click();
}

test("images, volumes, networks and projects are dealt with from the palette, by the questions of their screens", async ({ page }) => {
  await page.goto("/");
  await expect(page.getByText("shop-web-1")).toBeVisible();
  await choose(page, "pull an image", "Pull an image");
  await expect(page.getByRole("dialog", { name: "Pull an image" })).toBeVisible();
  await page.keyboard.press("Escape");
  await choose(page, "clear away images", "Clear away images");
  await expect(page.getByRole("dialog", { name: "Clear away images" })).toBeVisible();
  await page.keyboard.press("Escape");
  await choose(page, "create volume", "Create a volume");
  await expect(page.getByRole("dialog", { name: "Create a volume" })).toBeVisible();
  await page.keyboard.press("Escape");
  await choose(page, "create network", "Create a network");
  await expect(page.getByRole("dialog", { name: "Create a network" })).toBeVisible();
  await page.keyboard.press("Escape");
  await choose(page, "remove old-cache", "Remove: old-cache");
  await expect(page.getByRole("dialog").getByText(/^Remove old-cache\?/)).toBeVisible();
  await page.keyboard.press("Escape");
  await choose(page, "remove redis", "Remove: redis:8-alpine");
  await expect(page.getByRole("dialog").getByText(/^Remove redis:8-alpine\?/)).toBeVisible();
  await page.keyboard.press("Escape");
  await choose(page, "down shop", "Bring down: shop");
  await expect(page.getByRole("dialog").getByText(/^Bring down shop\?/)).toBeVisible();
  await page.keyboard.press("Escape");
  await choose(page, "dark", "Appearance: Dark");
  await expect(page.locator("html")).toHaveAttribute("data-theme", "dark");
});
