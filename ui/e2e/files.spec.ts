import AxeBuilder from "@axe-core/playwright";
import { expect, type Page, test } from "@playwright/test";

const CONTAINER = "0001".repeat(16);
const FILES = `/#/containers/${CONTAINER}/files`;

function drop(page: Page, path: string) {
  return page.evaluate((path) => {
    window.dispatchEvent(new CustomEvent("cove-drag", { detail: { kind: "dropped", paths: [path] } }));
  }, path);
}

test("a file is edited and keeps what was saved, and leaving unsaved text is asked about", async ({ page }) => {
  await page.goto(FILES);
  await page.getByRole("button", { name: "etc", exact: false }).first().click();
  await page.getByRole("button", { name: /^nginx/ }).first().click();
  await page.getByRole("button", { name: /^nginx\.conf/ }).click();
  const text = page.getByRole("textbox", { name: "/etc/nginx/nginx.conf" });
  await expect(text).toHaveValue(/worker_connections 1024/);
  await text.fill("worker_processes 2;\n");
  await expect(page.getByText("not saved")).toBeVisible();
  await page.keyboard.press("Control+s");
  await expect(page.getByText("not saved")).toHaveCount(0);
  await text.fill("thrown away");
  await page.getByRole("button", { name: "Back to the folder" }).click();
  await expect(page.getByText("Discard what was changed in /etc/nginx/nginx.conf?")).toBeVisible();
  await page.getByRole("dialog").getByRole("button", { name: "Discard" }).click();
  await page.getByRole("button", { name: /^nginx\.conf/ }).click();
  await expect(text).toHaveValue("worker_processes 2;\n");
});

test("what differs from the image is marked, and what is gone from it is still named", async ({ page }) => {
  await page.goto(FILES);
  await page.getByRole("button", { name: /^etc/ }).first().click();
  await page.getByRole("button", { name: /^nginx/ }).first().click();
  await expect(page.locator(".file", { hasText: "conf.d" }).getByText("changed")).toBeVisible();
  await expect(page.locator(".file", { hasText: "scgi_params" }).getByText("deleted")).toBeVisible();
  await expect(page.getByText("→ /usr/lib/nginx/modules")).toBeVisible();
});

test("a file dropped on the tab is copied in and not asked about", async ({ page }) => {
  await page.goto(FILES);
  await page.getByRole("button", { name: /^tmp/ }).click();
  await expect(page.getByText("This folder is empty.")).toBeVisible();
  await drop(page, "/home/mara/notes.txt");
  await expect(page.locator(".file", { hasText: "notes.txt" }).getByText("added")).toBeVisible();
  await expect(page.getByRole("dialog")).toHaveCount(0);
  await page.getByRole("link", { name: "Logs" }).click();
  await drop(page, "/home/mara/notes.txt");
  await expect(page.getByText("Only folders can be mounted.")).toBeVisible();
});

test("folders are made, renamed and, after a yes, deleted; a mount is not", async ({ page }) => {
  await page.goto(FILES);
  await page.getByRole("button", { name: "New folder" }).click();
  await page.getByRole("dialog").getByRole("textbox").fill("site");
  await page.getByRole("button", { name: "Create" }).click();
  await page.getByRole("button", { name: "Rename site" }).click();
  await page.getByRole("dialog").getByRole("textbox").fill("pages");
  await page.getByRole("dialog").getByRole("button", { name: "Rename" }).click();
  await expect(page.locator(".file", { hasText: "pages" })).toBeVisible();
  await page.getByRole("button", { name: "Delete pages" }).click();
  await expect(page.getByText("Delete the folder /pages in shop-web-1 with everything in it?")).toBeVisible();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await expect(page.locator(".file", { hasText: "pages" })).toHaveCount(0);
  await page.getByRole("button", { name: "Delete srv" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await expect(page.getByText("/srv is mounted there")).toBeVisible();
  await expect(page.locator(".file", { hasText: "srv" })).toBeVisible();
});

test("what is deleted or edited in a mount is named as what it is elsewhere", async ({ page }) => {
  await page.goto(FILES);
  await page.getByRole("button", { name: /^srv/ }).click();
  await expect(page.getByText("This is /home/mara/shop on this computer. What is changed here is changed there.")).toBeVisible();
  await page.getByRole("button", { name: "Rename index.html" }).click();
  await expect(page.getByRole("dialog").getByText("This is /home/mara/shop/index.html on this computer.")).toBeVisible();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Delete index.html" }).click();
  await expect(page.getByRole("dialog").getByText("What is lost is /home/mara/shop/index.html on this computer.")).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => violation.id)).toEqual([]);
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: /^index\.html/ }).click();
  await expect(page.getByText("This is /home/mara/shop/index.html on this computer.")).toBeVisible();
});

test("what would be written over is asked about by its name, and what was left out is said", async ({ page }) => {
  await page.goto(FILES);
  await page.getByRole("button", { name: /^etc/ }).first().click();
  await drop(page, "/home/mara/passwd");
  const dialog = page.getByRole("dialog");
  await expect(dialog.getByText("There are already things of these names in /etc: passwd.")).toBeVisible();
  await dialog.getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: /^passwd/ }).click();
  await expect(page.getByRole("textbox", { name: "/etc/passwd" })).toHaveValue(/nginx:x:101/);
  await page.getByRole("button", { name: "Back to the folder" }).click();
  await drop(page, "/home/mara/passwd");
  await dialog.getByRole("button", { name: "Overwrite" }).click();
  await expect(page.locator(".file", { hasText: "passwd" }).getByText("28 B")).toBeVisible();
  await drop(page, "/run/app.sock");
  await expect(page.getByText("Copied, but for what is no file, folder or link: app.sock")).toBeVisible();
});

test("a download is a task, which can be cancelled", async ({ page }) => {
  await page.goto(FILES);
  await expect(page.getByRole("button", { name: "Download var" })).toBeVisible();
  await page.keyboard.press("Control+j");
  const drawer = page.getByRole("region", { name: "Tasks", exact: true });
  await page.getByRole("button", { name: "Download var" }).click();
  await expect(drawer.getByText("Download /var of shop-web-1").first()).toBeVisible();
  await drawer.getByRole("button", { name: "Cancel" }).click();
  await expect(drawer.getByText("cancelled")).toBeVisible();
  await expect(page.getByText("Saved as")).toHaveCount(0);
  await page.getByRole("button", { name: "Download var" }).click();
  await expect(page.getByText("Saved as /home/mara/Downloads/var.tar")).toBeVisible();
});

test("a binary file says that it is none to edit, and a stopped container what cannot be done", async ({ page }) => {
  await page.goto(FILES);
  await page.getByRole("button", { name: /^bin/ }).click();
  await page.getByRole("button", { name: /^busybox/ }).click();
  await expect(page.getByText("this file is no text")).toBeVisible();
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await expect(page.getByText("nothing can be renamed or deleted")).toBeVisible();
  await expect(page.getByRole("button", { name: /^Delete / })).toHaveCount(0);
});

test("the editor is accessible", async ({ page }) => {
  await page.goto(FILES);
  await page.getByRole("button", { name: /^etc/ }).first().click();
  await page.getByRole("button", { name: /^passwd/ }).click();
  await expect(page.getByRole("textbox", { name: "/etc/passwd" })).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => violation.id)).toEqual([]);
});

test("a volume's files are edited, copied in and deleted as a container's are", async ({ page }) => {
  await page.goto("/#/volumes/shop_data");
  const side = page.getByRole("region", { name: "Details of shop_data" });
  await side.getByRole("link", { name: "Files" }).click();
  await expect(side.getByText("What is changed here, these containers see at once: shop-db-1.")).toBeVisible();
  await side.getByRole("button", { name: /^conf/ }).click();
  await side.getByRole("button", { name: /^shop\.conf/ }).click();
  const text = page.getByRole("textbox", { name: "/conf/shop.conf" });
  await expect(text).toHaveValue("currency = EUR\n");
  await text.fill("currency = CHF\n");
  await page.keyboard.press("Control+s");
  await expect(page.getByText("not saved")).toHaveCount(0);
  await page.getByRole("button", { name: "Back to the folder" }).click();
  await drop(page, "/home/mara/notes.txt");
  await expect(page.locator(".file", { hasText: "notes.txt" })).toBeVisible();
  await page.getByRole("button", { name: "Delete shop.conf" }).click();
  await expect(page.getByText("Delete /conf/shop.conf in shop_data? It cannot be brought back.")).toBeVisible();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await expect(page.locator(".file", { hasText: "shop.conf" })).toHaveCount(0);
  await side.getByRole("link", { name: "Inspect" }).click();
  await expect(side.getByText("com.docker.compose.project")).toBeVisible();
});
