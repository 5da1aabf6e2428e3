import { expect, test } from "@playwright/test";

const CONTAINER = "0001".repeat(16);
/** Screens without a terminal, which takes the key, and a text that is there once they are. */
const SCREENS: [string, string][] = [
  ["/", "shop-web-1"],
  [`/#/containers/${CONTAINER}/logs`, "400 lines"],
  [`/#/containers/${CONTAINER}/files`, "Drop files here"],
  [`/#/containers/${CONTAINER}/inspect`, "WorkingDir"],
  ["/#/containers/new", "docker run --detach IMAGE"],
  ["/#/images", "postgres:17"],
  ["/#/volumes/shop_data", "com.docker.compose.project"],
  ["/#/networks", "172.17.0.0/16"],
  ["/#/compose/shop", "shop-db-1"],
  ["/#/builds/new", "docker build FOLDER"],
  ["/#/registries", "ghcr.io"],
  ["/#/machine", "The machine is running"],
  ["/#/machine/settings", "machine.memory"],
  ["/#/machine/machines", "Create a machine…"],
];

for (const [address, text] of SCREENS) {
  test(`all that can be pressed or typed into at ${address} is reached by Tab`, async ({ page }) => {
    await page.goto(address);
    await expect(page.getByText(text).first()).toBeVisible();
    await expect(page.getByText("Reading…")).toHaveCount(0);
    const wanted = await page.evaluate(() => {
      const all = [...document.querySelectorAll<HTMLElement>("a[href], button, input, select, textarea, [role=button]")];
      const usable = all.filter((one) => one.checkVisibility() && !one.matches(":disabled"));
      for (const [index, one] of usable.entries()) one.dataset["usable"] = String(index);
      return usable.map((one) => one.outerHTML);
    });
    expect(wanted.length).toBeGreaterThan(10);
    const reached = new Set<number>();
    // It begins wherever the focus is, and goes around.
    for (let presses = 0; presses < 2 * wanted.length + 20 && reached.size < wanted.length; presses += 1) {
      await page.keyboard.press("Tab");
      const mark = await page.evaluate(() => {
        const one = document.activeElement;
        return one instanceof HTMLElement ? (one.dataset["usable"] ?? null) : null;
      });
      if (mark !== null) reached.add(Number(mark));
    }
    expect(wanted.filter((_, index) => !reached.has(index))).toEqual([]);
  });
}
