import AxeBuilder from "@axe-core/playwright";
import { expect, test } from "@playwright/test";

const CONTAINER = "0001".repeat(16);
const SCREENS: [string, string, string][] = [
  ["containers", "/", "shop-web-1"],
  ["logs", `/#/containers/${CONTAINER}/logs`, "400 lines"],
  ["stats", `/#/containers/${CONTAINER}/stats`, "Memory"],
  ["inspect", `/#/containers/${CONTAINER}/inspect`, "WorkingDir"],
  ["run", "/#/containers/new", "docker run --detach IMAGE"],
  ["images", "/#/images", "postgres:17"],
  ["volumes", "/#/volumes", "shop_data"],
  ["networks", "/#/networks", "172.17.0.0/16"],
  ["machine", "/#/machine", "The machine is running"],
  ["stopped", "/?machine=stopped", "Start the machine"],
];

for (const theme of ["light", "dark"] as const) {
  for (const [name, address, text] of SCREENS) {
    test(`${name} shows its content and is accessible, ${theme}`, async ({ page }) => {
      await page.emulateMedia({ colorScheme: theme });
      await page.goto(address);
      await expect(page.getByText(text).first()).toBeVisible();
      if (name === "containers" || name === "stats") await page.waitForTimeout(2500);
      await page.screenshot({ path: `../docs/screenshots/${name}-${theme}.png` });
      const { violations } = await new AxeBuilder({ page }).analyze();
      expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
    });
  }
}
