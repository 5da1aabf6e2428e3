import AxeBuilder from "@axe-core/playwright";
import { expect, type Page, test } from "@playwright/test";

const item = (page: Page) => page.locator(".item", { hasText: "shop-web-1" });
const menu = (page: Page) => page.getByRole("menu", { name: "Actions of shop-web-1" });

async function clean(page: Page) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
}

test("a container is stopped, started and looked at from its row", async ({ page }) => {
  await page.goto("/");
  await item(page).hover();
  await item(page).getByRole("button", { name: "Stop shop-web-1" }).click();
  await expect(item(page).getByText("Exited (0)")).toBeVisible();
  await clean(page);
  await item(page).getByRole("button", { name: "Start shop-web-1" }).click();
  await expect(item(page).getByText("Up 1 second")).toBeVisible();
  await item(page).getByRole("button", { name: "Remove shop-web-1" }).click();
  await expect(page.getByRole("dialog").getByText(/^Remove shop-web-1\?/)).toBeVisible();
  await page.keyboard.press("Escape");
  await item(page).getByRole("button", { name: "Logs shop-web-1" }).click();
  await expect(page.getByRole("log")).toBeVisible();
});

test("the buttons of a row are reached by keyboard, and the focus stays on the one that was pressed", async ({ page }) => {
  await page.goto("/");
  await item(page).getByRole("link", { name: /shop-web-1/ }).focus();
  const stop = item(page).getByRole("button", { name: "Stop shop-web-1" });
  // The port's link stands between.
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  await expect(stop).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(item(page).getByRole("button", { name: "Start shop-web-1" })).toBeFocused();
  await page.keyboard.press("Tab");
  await expect(item(page).getByRole("button", { name: "Logs shop-web-1" })).toBeFocused();
});

test("the right mouse button opens what can be done to a row", async ({ page }) => {
  await page.goto("/");
  await item(page).click({ button: "right" });
  await expect(menu(page).getByRole("menuitem")).toHaveText(["Stop", "Restart", "Pause", "Logs", "Terminal", "Files", "Kill", "Remove"]);
  await clean(page);
  await menu(page).getByRole("menuitem", { name: "Pause" }).click();
  await expect(menu(page)).toHaveCount(0);
  await expect(item(page).getByText("(Paused)")).toBeVisible();
  await item(page).click({ button: "right" });
  await menu(page).getByRole("menuitem", { name: "Kill" }).click();
  await expect(page.getByRole("dialog").getByText(/^Kill shop-web-1\?/)).toBeVisible();
});

test("the menu of a row is opened, walked and left by keyboard, which then is where it was", async ({ page }) => {
  await page.goto("/");
  const link = item(page).getByRole("link", { name: /shop-web-1/ });
  await link.focus();
  await page.keyboard.press("Shift+F10");
  await expect(menu(page).getByRole("menuitem", { name: "Stop" })).toBeFocused();
  await page.keyboard.press("ArrowUp");
  await expect(menu(page).getByRole("menuitem", { name: "Remove" })).toBeFocused();
  await page.keyboard.press("Escape");
  await expect(menu(page)).toHaveCount(0);
  await expect(link).toBeFocused();
  await page.keyboard.press("ContextMenu");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await expect(menu(page)).toHaveCount(0);
  await expect(item(page).getByText("Up 1 second")).toBeVisible();
});

test("the menu closes when something else is pressed, and the browser's own is left where one types", async ({ page }) => {
  await page.goto("/");
  await item(page).click({ button: "right" });
  await expect(menu(page)).toBeVisible();
  await page.getByRole("searchbox").click();
  await expect(menu(page)).toHaveCount(0);
  const kept = await page.evaluate(() => {
    const asks = (selector: string) => document.querySelector(selector)?.dispatchEvent(new MouseEvent("contextmenu", { bubbles: true, cancelable: true }));
    return ["#search", ".item", "nav"].map(asks);
  });
  expect(kept).toEqual([true, false, false]);
});

test("images, volumes, networks and projects have a menu as well", async ({ page }) => {
  for (const [screen, name, entries] of [
    ["images", "redis:8-alpine", ["Run", "Push", "Tag", "Save", "Remove"]],
    ["volumes", "old-cache", ["Back up", "Clone", "Empty", "Remove"]],
    ["networks", "shop_default", ["Connect", "Remove"]],
    ["compose", "shop", ["Bring up", "Stop", "Restart", "Bring down"]],
  ] as const) {
    await page.goto(`/#/${screen}`);
    await page.locator("tbody tr", { hasText: name }).first().click({ button: "right" });
    await expect(page.getByRole("menu", { name: `Actions of ${name}` }).getByRole("menuitem")).toHaveText([...entries]);
  }
});

test("what is asked before, and what a view shows, has its command to be copied", async ({ page, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const copied = () => page.evaluate(() => navigator.clipboard.readText());
  await page.goto("/");
  await item(page).click({ button: "right" });
  await menu(page).getByRole("menuitem", { name: "Kill" }).click();
  await expect(page.getByRole("button", { name: "Cancel" })).toBeFocused();
  await page.getByRole("dialog").getByRole("button", { name: "Copy command" }).click();
  await expect.poll(copied).toBe("docker kill shop-web-1");
  await clean(page);
  await page.keyboard.press("Escape");
  await page.goto(`/#/containers/${"0001".repeat(16)}/processes`);
  await page.getByRole("button", { name: "Copy the command of Processes" }).click();
  await expect.poll(copied).toBe("docker top shop-web-1");
  await page.goto("/#/compose/shop");
  await page.getByRole("button", { name: "Copy the command of Restart" }).click();
  await expect.poll(copied).toBe("docker compose --project-name=shop restart");
  await page.goto("/#/volumes/old-cache");
  await page.getByRole("button", { name: "Copy the command of Back up" }).click();
  await expect.poll(copied).toContain("--volume old-cache:/volume:ro");
  await page.goto("/#/machine");
  await page.getByRole("button", { name: "Copy cove restart" }).click();
  await expect.poll(copied).toBe("cove restart");
});

test("images are sorted by their heads, and containers by a choice", async ({ page }) => {
  await page.goto("/#/images");
  const size = page.getByRole("columnheader", { name: "Size" });
  await expect(size).toHaveAttribute("aria-sort", "none");
  await size.getByRole("button").click();
  await size.getByRole("button").click();
  await expect(size).toHaveAttribute("aria-sort", "descending");
  // The largest of them.
  await expect(page.locator("tbody tr").first()).toContainText("alpine:3.23");
  await clean(page);
  await page.getByRole("link", { name: "Volumes" }).click();
  await page.getByRole("link", { name: "Images", exact: true }).first().click();
  await expect(size).toHaveAttribute("aria-sort", "descending");
  await page.goto("/");
  await page.getByRole("combobox", { name: "Sort by" }).selectOption("Created");
  await expect(page.locator("section", { hasText: "shop-web-1" }).locator(".name").first()).toHaveText("shop-web-1");
  await clean(page);
});
