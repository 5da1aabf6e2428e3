import AxeBuilder from "@axe-core/playwright";
import { expect, test } from "@playwright/test";

const CONTAINER = "0001".repeat(16);

test.describe("in a window of the usual size", () => {
  test.use({ viewport: { width: 1180, height: 760 } });

  test("the form that runs a container shows its command and its button, and its fields scroll", async ({ page }) => {
    await page.goto("/#/containers/new");
    const form = page.getByRole("form", { name: "Run a container" });
    await expect(form.getByRole("button", { name: "Run", exact: true })).toBeInViewport({ ratio: 1 });
    await expect(form.locator("pre")).toBeInViewport({ ratio: 1 });
    const last = form.getByRole("checkbox", { name: "Remove when it ends" });
    await form.getByLabel("Image").hover();
    await page.mouse.wheel(0, 2000);
    await expect(last).toBeInViewport({ ratio: 1 });
    await expect(form.getByRole("button", { name: "Run", exact: true })).toBeInViewport({ ratio: 1 });
  });

  test("a filter that is in force is seen beside details, and taken away there", async ({ page }) => {
    await page.goto("/");
    const filters = page.getByRole("group", { name: "State" });
    await filters.getByRole("button", { name: "Stopped" }).click();
    const rows = page.locator(".item");
    await expect(rows).not.toHaveCount(14);
    await rows.getByRole("link").first().click();
    await expect(page.getByRole("region", { name: /^Details of/ })).toBeVisible();
    await expect(filters.getByRole("button")).toHaveCount(1);
    await filters.getByRole("button", { name: "Stopped" }).click();
    await expect(rows).toHaveCount(14);
    await expect(filters.getByRole("button")).toHaveCount(0);
  });
});

test("a long answer scrolls where it is shown", async ({ page }) => {
  await page.setViewportSize({ width: 1180, height: 480 });
  await page.goto(`/#/containers/${CONTAINER}/inspect`);
  await page.getByRole("button", { name: "JSON" }).click();
  await expect(page.locator("pre").getByText("WorkingDir")).toBeVisible();
  const region = page.getByRole("region", { name: "Inspect", exact: true });
  await region.hover();
  await page.mouse.wheel(0, 300);
  await expect.poll(() => region.evaluate((pane) => pane.scrollTop)).toBeGreaterThan(0);
  const box = await region.boundingBox();
  expect((box?.y ?? 0) + (box?.height ?? 0)).toBeLessThanOrEqual(480);
});

test.describe("in a narrow window", () => {
  test.use({ viewport: { width: 800, height: 600 } });

  for (const [name, address, row] of [
    ["containers", `/#/containers/${CONTAINER}/logs`, /shop-web-1/],
    ["volumes", "/#/volumes/shop_data", /shop_data/],
  ] as const) {
    test(`details take the place of the list of ${name}, and what goes wrong is said above them`, async ({ page }) => {
      await page.goto(address);
      const details = page.getByRole("region", { name: /^Details of/ });
      const close = details.getByRole("link", { name: "Close" });
      await expect(close).toBeInViewport({ ratio: 1 });
      const box = await details.boundingBox();
      expect((box?.x ?? 0) + (box?.width ?? 0)).toBeLessThanOrEqual(800);
      await expect(page.locator(".rows")).toBeHidden();
      await page.evaluate(() => {
        window.dispatchEvent(new CustomEvent("cove-engine", { detail: { message: "the connection to the engine broke", hint: "" } }));
      });
      await expect(page.getByText("What shows here is what was last known.")).toBeInViewport({ ratio: 1 });
      await expect(close).toBeInViewport({ ratio: 1 });
      const { violations } = await new AxeBuilder({ page }).analyze();
      expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
      await close.click();
      await expect(page.locator(".rows").getByRole("link", { name: row }).first()).toBeVisible();
    });
  }
});

test("curves end where their chart does, which says its scale", async ({ page }) => {
  await page.goto(`/#/containers/${CONTAINER}/stats`);
  const stats = page.getByRole("region", { name: "Stats" });
  await expect(stats.getByText(/^Peak \d+ MiB, scale up to \d+ MiB/)).toContainText("Limit 2.0 GiB");
  const chart = stats.locator("svg").first();
  const right = (element: Element) => element.getBoundingClientRect().right;
  await expect.poll(async () => Math.abs((await chart.locator("polyline").evaluate(right)) - (await chart.evaluate(right)))).toBeLessThan(3);
});

test("a terminal has one background to its end", async ({ page }) => {
  await page.goto(`/#/containers/${CONTAINER}/terminal`);
  await expect(page.locator(".xterm-viewport")).toHaveCSS("background-color", "rgba(0, 0, 0, 0)");
});
