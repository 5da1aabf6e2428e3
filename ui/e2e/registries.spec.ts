import AxeBuilder from "@axe-core/playwright";
import { expect, type Page, test } from "@playwright/test";

const row = (page: Page, name: string) => page.locator("tbody tr", { hasText: name });
const dialog = (page: Page) => page.getByRole("dialog");

async function clean(page: Page) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
}

/** Fills the open form and sends it. */
async function sign(page: Page, user: string, password: string) {
  await page.getByLabel("User", { exact: true }).fill(user);
  await page.getByLabel("Password or token").fill(password);
  await dialog(page).getByRole("button", { name: "Sign in" }).click();
}

test("a wrong password is told in the engine's words, and the right one is kept by the helper that is named", async ({ page }) => {
  await page.goto("/#/registries");
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(dialog(page).getByText("docker login --username USER", { exact: true })).toBeVisible();
  // Without an address it is Docker Hub, whose password another helper has already.
  await expect(dialog(page).getByText("docker-credential-secretservice keeps it")).toBeVisible();
  await expect(dialog(page).getByRole("button", { name: "Sign in" })).toBeDisabled();
  await page.getByLabel("Address").fill("registry.shop.example");
  await expect(dialog(page).getByText("docker-credential-cove keeps it")).toBeVisible();
  await sign(page, "mara", "wrong");
  await expect(dialog(page).getByRole("alert")).toContainText("401 Unauthorized");
  await expect(dialog(page).getByRole("alert")).toContainText("It failed at the registry, or on the way there.");
  await expect(dialog(page).getByText("docker login --username mara registry.shop.example")).toBeVisible();
  await clean(page);
  await sign(page, "mara", "s3same");
  await expect(dialog(page)).toHaveCount(0);
  await expect(row(page, "registry.shop.example").getByText("keyring")).toBeVisible();
  await page.getByRole("button", { name: "Sign in" }).click();
  await expect(page.getByLabel("Password or token")).toHaveValue("");
  await expect(page.getByText("s3same")).toHaveCount(0);
});

test("a password in plain text is warned of, and signing in again mends it", async ({ page }) => {
  await page.goto("/#/registries");
  await expect(row(page, "registry.old.example:5000").getByText("plain text in the file")).toBeVisible();
  await page.getByRole("link", { name: "registry.old.example:5000" }).click();
  const side = page.getByRole("region", { name: "Details of registry.old.example:5000" });
  await expect(side.getByText("lies in /home/mara/.docker/config.json in plain text")).toBeVisible();
  await side.getByRole("button", { name: "Sign in again" }).click();
  await expect(page.getByLabel("Address")).toHaveValue("registry.old.example:5000");
  await expect(page.getByLabel("User", { exact: true })).toHaveValue("mara");
  await sign(page, "mara", "s3same");
  await expect(row(page, "registry.old.example:5000").getByText("keyring")).toBeVisible();
});

test("signing out asks first, with the command that does the same", async ({ page }) => {
  await page.goto("/#/registries");
  await row(page, "ghcr.io").getByRole("checkbox").check();
  await row(page, "Docker Hub").getByRole("checkbox").check();
  await page.getByRole("status").getByRole("button", { name: "Sign out" }).click();
  await expect(dialog(page).getByText("docker logout ghcr.io")).toBeVisible();
  await clean(page);
  await dialog(page).getByRole("button", { name: "Sign out" }).click();
  await expect(row(page, "ghcr.io")).toHaveCount(0);
  await expect(row(page, "Docker Hub")).toHaveCount(0);
  await expect(row(page, "registry.old.example:5000")).toBeVisible();
});

test("a private image that is refused leads to signing in, and can be pulled then", async ({ page }) => {
  const pull = async () => {
    await page.getByRole("button", { name: "Pull" }).click();
    await page.getByLabel("Image", { exact: true }).fill("private.example/shop/api:2");
    await page.keyboard.press("Enter");
  };
  await page.goto("/#/images");
  await pull();
  await expect(page.getByRole("status").getByText("no basic auth credentials")).toBeVisible();
  await clean(page);
  await page.getByRole("status").getByRole("link", { name: "Sign in to private.example" }).click();
  await expect(page.getByLabel("Address")).toHaveValue("private.example");
  await sign(page, "mara", "s3same");
  await expect(row(page, "private.example")).toBeVisible();
  await page.getByRole("link", { name: "Images", exact: true }).click();
  await pull();
  await expect(row(page, "private.example/shop/api:2")).toBeVisible();
});

test("accounts are there without a machine, and the palette leads to signing in", async ({ page }) => {
  await page.goto("/?machine=stopped#/registries");
  await expect(row(page, "ghcr.io")).toBeVisible();
  await page.keyboard.press("Control+k");
  await page.keyboard.type("sign in");
  await page.keyboard.press("Enter");
  await expect(page.getByLabel("Password or token")).toBeVisible();
});
