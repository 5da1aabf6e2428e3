import AxeBuilder from "@axe-core/playwright";
import { expect, type Page, test } from "@playwright/test";

const row = (page: Page, name: string) => page.locator("tbody tr", { hasText: name });

async function clean(page: Page) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
}

test("an image is pulled as a task and appears by itself", async ({ page }) => {
  await page.goto("/#/images");
  await page.getByRole("button", { name: "Pull" }).click();
  await page.getByLabel("Image", { exact: true }).fill("busybox:1.37");
  await expect(page.getByText("docker pull busybox:1.37")).toBeVisible();
  await clean(page);
  await page.keyboard.press("Enter");
  await expect(page.getByRole("status").getByText("Pull busybox:1.37")).toBeVisible();
  await expect(row(page, "busybox:1.37")).toBeVisible();
});

test("an image in use is removed only after a yes that names its containers", async ({ page }) => {
  await page.goto("/#/images");
  await row(page, "alpine:3.23").getByRole("checkbox").check();
  await page.getByRole("button", { name: "Remove" }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog.getByText("These containers were made from it.")).toContainText("scratch-6");
  await expect(dialog.getByText("docker rmi --force alpine:3.23")).toBeVisible();
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await expect(row(page, "alpine:3.23")).toBeVisible();
  await page.getByRole("button", { name: "Remove" }).click();
  await dialog.getByRole("button", { name: "Remove" }).click();
  await expect(row(page, "alpine:3.23")).toHaveCount(0);
});

test("a second name is given and taken away at the side, and the layers are there", async ({ page }) => {
  await page.goto("/#/images");
  await page.getByRole("link", { name: /shop\/api:dev/ }).click();
  const side = page.getByRole("region", { name: "Details of shop/api:dev" });
  await expect(side.getByText("apk add --no-cache nginx")).toBeVisible();
  await side.getByRole("button", { name: "Tag" }).click();
  await page.getByLabel("New name").fill("shop/api:UPPER");
  await page.keyboard.press("Enter");
  await expect(page.getByRole("dialog").getByText("invalid reference format")).toBeVisible();
  await page.getByLabel("New name").fill("shop/api:next");
  await page.keyboard.press("Enter");
  await expect(row(page, "+ shop/api:next")).toBeVisible();
  await side.getByRole("button", { name: "Remove the name shop/api:next" }).click();
  await expect(row(page, "+ shop/api:next")).toHaveCount(0);
  await expect(row(page, "shop/api:dev")).toBeVisible();
  await page.getByRole("status").getByRole("button", { name: "Undo" }).click();
  await expect(row(page, "+ shop/api:next")).toBeVisible();
});

test("clearing away says what goes and how much that is", async ({ page }) => {
  await page.goto("/#/images");
  await page.getByRole("button", { name: "Clear away" }).click();
  const dialog = page.getByRole("dialog");
  await expect(dialog.getByLabel("Without a name: 1, 246 MiB")).toBeChecked();
  await dialog.getByLabel("That no container was made from: 2, 377 MiB").check();
  await expect(dialog.getByText("These go:")).toContainText("python:3.14-slim");
  await dialog.getByRole("button", { name: "Clear away" }).click();
  await expect(row(page, "python")).toHaveCount(0);
  await page.keyboard.press("Control+j");
  await expect(page.getByRole("region", { name: "Tasks", exact: true }).getByText("2 removed, 377 MiB free again")).toBeVisible();
  await page.getByRole("button", { name: "Untagged" }).click();
  await expect(page.getByText("Nothing matches")).toBeVisible();
});

test("several images are saved together, and one is run from its side", async ({ page }) => {
  await page.goto("/#/images");
  await row(page, "postgres:17").getByRole("checkbox").check();
  await row(page, "redis:8-alpine").getByRole("checkbox").check();
  await page.getByRole("button", { name: "Save" }).click();
  await expect(page.getByRole("status").filter({ hasText: "Save postgres:17 + 1" })).toBeVisible();
  await page.getByRole("link", { name: /redis:8-alpine/ }).click();
  await page.getByRole("region", { name: /Details/ }).getByRole("button", { name: "Run" }).click();
  await expect(page.getByLabel("Image")).toHaveValue("redis:8-alpine");
});

test("a tar that is dropped on Images is loaded, and a folder is asked about as everywhere", async ({ page }) => {
  const drop = (path: string) =>
    page.evaluate((path) => {
      window.dispatchEvent(new CustomEvent("cove-drag", { detail: { kind: "dropped", paths: [path] } }));
    }, path);
  await page.goto("/#/images");
  await expect(row(page, "postgres:17")).toBeVisible();
  await drop("/home/mara/tools.tar");
  await expect(row(page, "tools:latest")).toBeVisible();
  await drop("/srv/site");
  await expect(page.getByText("Containers cannot see this folder yet.")).toBeVisible();
});

for (const theme of ["light", "dark"] as const) {
  test(`the files of each layer are read, searched and walked through, ${theme}`, async ({ page }) => {
    await page.emulateMedia({ colorScheme: theme });
    await page.goto("/#/images");
    await page.getByRole("link", { name: /shop\/api:dev/ }).click();
    const side = page.getByRole("region", { name: "Details of shop/api:dev" });
    await side.getByRole("link", { name: "Files" }).click();
    await expect(side.getByText("The machine has to send the whole image for that")).toBeVisible();
    await clean(page);
    await side.getByRole("button", { name: "Read the layers" }).click();
    const files = side.getByRole("region", { name: "Files" });
    await expect(files.locator(".file").first()).toContainText("/lib/libcrypto.so.3");
    await side.getByRole("button", { name: /^RUN set -x/ }).click();
    await expect(files.locator(".file", { hasText: "/etc/motd" }).getByText("deleted")).toBeVisible();
    await clean(page);
    await side.getByRole("button", { name: "Folders" }).click();
    await files.getByRole("button", { name: "etc/" }).click();
    await expect(files.locator(".file", { hasText: "passwd" }).getByText("changed")).toBeVisible();
    await page.screenshot({ path: `../docs/screenshots/layers-${theme}.png` });
    await side.getByRole("searchbox", { name: "Search paths" }).fill("motd");
    await expect(files.locator(".file")).toHaveCount(1);
    await side.getByRole("button", { name: /^COPY/ }).click();
    await expect(files.getByText("packed or made in a way that cannot be read here")).toBeVisible();
    await clean(page);
  });
}
