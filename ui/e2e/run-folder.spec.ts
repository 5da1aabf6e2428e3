import AxeBuilder from "@axe-core/playwright";
import { expect, test } from "@playwright/test";

test("a folder is chosen for the form, and one that is not shared is asked about before", async ({ page }) => {
  await page.goto("/#/containers/new");
  const form = page.getByRole("form", { name: "Run a container" });
  const folders = form.getByLabel("Folders and volumes");
  const add = form.getByRole("button", { name: "Add a folder…" });
  await add.click();
  await expect(folders).toHaveValue("/home/mara/shop:/mnt/shop");
  await add.click();
  await expect(folders).toHaveValue("/home/mara/shop:/mnt/shop\n/home/mara/blog:/mnt/blog");
  await folders.fill("/srv/forum:/forum");
  await expect(form.getByText("/srv/forum is not shared with the machine")).toBeVisible();
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => violation.id)).toEqual([]);
  await add.click();
  const dialog = page.getByRole("dialog", { name: "forum" });
  await expect(dialog.getByText("Containers cannot see this folder yet.")).toBeVisible();
  await expect(dialog.getByRole("radio")).toHaveCount(0);
  await dialog.getByRole("button", { name: "Share and mount" }).click();
  await expect(form.getByText("is not shared with the machine")).toHaveCount(0);
  await expect(folders).toHaveValue("/srv/forum:/forum");
});
