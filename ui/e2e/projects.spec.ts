import AxeBuilder from "@axe-core/playwright";
import { expect, type Page, test } from "@playwright/test";

const row = (page: Page, name: string) => page.locator("tbody tr", { hasText: name });
const dialog = (page: Page) => page.getByRole("dialog");

async function clean(page: Page) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
}

/** Lets a folder fall on the window. */
async function drop(page: Page, path: string) {
  // Nobody listens before the window is there.
  await expect(page.getByRole("navigation", { name: "Cove" })).toBeVisible();
  await page.evaluate((path) => {
    window.dispatchEvent(new CustomEvent("cove-drag", { detail: { kind: "dropped", paths: [path] } }));
  }, path);
}

test("an image is built from a chosen folder, its steps are followed, and the build is in the history", async ({ page }) => {
  await page.goto("/#/builds");
  await page.getByRole("button", { name: "Build", exact: true }).click();
  const form = page.getByRole("form", { name: "Build an image" });
  await expect(form.getByRole("button", { name: "Build", exact: true })).toBeDisabled();
  await form.getByRole("button", { name: "Choose a folder…" }).click();
  await expect(form.getByText("docker build --tag shop:latest /home/mara/shop")).toBeVisible();
  await form.getByLabel("Stage to build").fill("build");
  await form.getByLabel("Platforms").fill("linux/amd64, linux/arm64");
  await form.getByLabel("Build arguments").fill("COMMIT=9e1f");
  await expect(form.getByText("docker build --tag shop:latest --target build --platform linux/amd64,linux/arm64 --build-arg COMMIT=9e1f /home/mara/shop")).toBeVisible();
  await clean(page);
  await form.getByRole("button", { name: "Build", exact: true }).click();
  const side = page.getByRole("region", { name: "Details of shop:latest" });
  await expect(side.getByText("RUN npm run build")).toBeVisible();
  await side.getByRole("link", { name: "Logs" }).click();
  await expect(side.getByText("412 modules transformed")).toBeVisible();
  await side.getByRole("link", { name: "Steps" }).click();
  await expect(side.getByText(/^done · 5\.4 s · 4 of 10 cached/)).toBeVisible();
  await expect(row(page, "shop:latest").getByText("done")).toBeVisible();
  await page.getByRole("link", { name: "Images", exact: true }).first().click();
  await expect(row(page, "shop:latest")).toBeVisible();
});

test("a build that fails says where and why, is built again with the same answers, and is removed from the history", async ({ page }) => {
  await page.goto("/#/builds");
  await row(page, "failed").getByRole("link").click();
  const side = page.getByRole("region", { name: "Details of shop/web:dev", exact: true });
  await expect(side.locator("li", { hasText: "RUN npm run build" }).getByText("exit code: 1")).toBeVisible();
  await clean(page);
  await side.getByRole("button", { name: "Build again" }).click();
  await expect(page.getByLabel("Stage to build")).toHaveValue("build");
  await page.goBack();
  await side.getByRole("button", { name: "Remove from history" }).click();
  await dialog(page).getByRole("button", { name: "Remove from history" }).click();
  await expect(row(page, "failed")).toHaveCount(0);
});

test("a build that is refused says why where it was begun", async ({ page }) => {
  await page.goto("/#/builds/new");
  const form = page.getByRole("form", { name: "Build an image" });
  await form.getByRole("button", { name: "Choose a folder…" }).click();
  await form.getByLabel("Build arguments").fill("A=1\nA=2");
  await form.getByRole("button", { name: "Build", exact: true }).click();
  const side = page.getByRole("region", { name: "Details of shop:latest" });
  await expect(side.getByText("two arguments have the same name")).toBeVisible();
  await expect(side.getByText("Change it and try again.")).toBeVisible();
  await expect(row(page, "shop:latest").getByText("failed")).toBeVisible();
  await clean(page);
  await side.getByRole("button", { name: "Remove from history" }).click();
  await dialog(page).getByRole("button", { name: "Remove from history" }).click();
  await expect(row(page, "shop:latest")).toHaveCount(0);
});

test("a build is cancelled where it is followed, and kept as that", async ({ page }) => {
  await page.goto("/#/builds/new");
  await page.getByRole("button", { name: "Choose a folder…" }).click();
  await page.getByRole("form").getByRole("button", { name: "Build", exact: true }).click();
  await page.getByRole("region", { name: "Details of shop:latest" }).getByRole("button", { name: "Cancel" }).click();
  await expect(row(page, "shop:latest").getByText("cancelled")).toBeVisible();
});

test("a project is brought down after a look at what goes, and up again", async ({ page }) => {
  await page.goto("/#/compose/shop");
  const side = page.getByRole("region", { name: "Details of shop", exact: true });
  await expect(side.getByRole("link", { name: /shop-db-1/ })).toBeVisible();
  await side.getByRole("button", { name: "Bring down", exact: true }).click();
  await expect(dialog(page).getByText(/Bring down shop\? .*shop-db-1/)).toBeVisible();
  await expect(dialog(page).getByText("docker compose --project-name=shop --project-directory=/home/mara/shop --file=/home/mara/shop/compose.yaml down")).toBeVisible();
  await clean(page);
  await dialog(page).getByRole("button", { name: "Bring down" }).click();
  await expect(side.getByText("not created").first()).toBeVisible();
  await side.getByRole("button", { name: "Bring up", exact: true }).click();
  await expect(side.getByRole("link", { name: /shop-web-1/ })).toBeVisible();
  await side.getByRole("link", { name: "Logs" }).click();
  await expect(side.getByText(/request \d+ answered/).last()).toBeVisible();
});

test("a compose file is saved only when it is valid", async ({ page }) => {
  await page.goto("/#/compose/blog/file");
  const editor = page.getByRole("textbox", { name: "/home/mara/blog/compose.yaml" });
  await expect(editor).toHaveValue(/postgres:17/);
  await editor.fill("servces: {}\n");
  await page.getByRole("button", { name: "Save" }).click();
  await expect(page.getByText("compose.yaml is not valid")).toBeVisible();
  await clean(page);
  await editor.fill("services: {}\n");
  await page.keyboard.press("Control+s");
  await expect(page.getByText("not saved")).toHaveCount(0);
});

test("a dropped folder is built or brought up, after it was shared with a yes", async ({ page }) => {
  await page.goto("/");
  await drop(page, "/srv/shop");
  await expect(dialog(page).getByText("Containers cannot see this folder yet.")).toBeVisible();
  await clean(page);
  await dialog(page).getByLabel(/Build an image/).check();
  await dialog(page).getByRole("button", { name: "Share and build" }).click();
  await expect(page.getByRole("form").getByText("docker build --tag shop:latest /srv/shop")).toBeVisible();
  await page.getByRole("form").getByRole("link", { name: "Close" }).click();
  await drop(page, "/srv/forum");
  await dialog(page).getByRole("button", { name: "Share and bring up" }).click();
  await expect(page.getByRole("region", { name: "Details of forum" }).getByRole("link", { name: /forum-web-1/ })).toBeVisible();
});

test("a folder dropped on the build form is what is built, and no mount of the next container", async ({ page }) => {
  await page.goto("/#/builds/new");
  const form = page.getByRole("form", { name: "Build an image" });
  await expect(form).toBeVisible();
  await drop(page, "/home/mara/shop");
  await expect(form.getByText("docker build --tag shop:latest /home/mara/shop")).toBeVisible();
  await expect(dialog(page)).toHaveCount(0);
  await drop(page, "/srv/forum");
  await expect(form.getByText("docker build --tag forum:latest /srv/forum")).toBeVisible();
  await expect(form.getByText("The machine cannot see this folder yet.")).toBeVisible();
  await drop(page, "/home/mara/notes.txt");
  await expect(form.getByText("notes.txt is no folder.")).toBeVisible();
  await page.goto("/#/containers/new");
  await expect(page.getByLabel("Folders and volumes")).toHaveValue("");
});

test("where nothing was built or composed yet, the screens say what to do", async ({ page }) => {
  await page.goto("/?containers=0#/builds");
  await expect(page.getByText("No builds yet")).toBeVisible();
  await clean(page);
  await page.getByRole("link", { name: "Compose", exact: true }).click();
  await expect(page.getByText("No compose projects")).toBeVisible();
  await clean(page);
});
