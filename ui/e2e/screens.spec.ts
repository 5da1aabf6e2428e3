import AxeBuilder from "@axe-core/playwright";
import { expect, test } from "@playwright/test";

const CONTAINER = "0001".repeat(16);
const SCREENS: [string, string, string][] = [
  ["containers", "/", "shop-web-1"],
  ["logs", `/#/containers/${CONTAINER}/logs`, "400 lines"],
  ["stats", `/#/containers/${CONTAINER}/stats`, "Memory"],
  ["terminal", `/#/containers/${CONTAINER}/terminal`, "Terminal"],
  ["processes", `/#/containers/${CONTAINER}/processes`, "worker process"],
  ["mounts", `/#/containers/${CONTAINER}/mounts`, "/home/mara/shop/nginx.conf"],
  ["inspect", `/#/containers/${CONTAINER}/inspect`, "WorkingDir"],
  ["run", "/#/containers/new", "docker run --detach IMAGE"],
  ["images", "/#/images", "postgres:17"],
  ["volumes", "/#/volumes", "shop_data"],
  ["networks", "/#/networks", "172.17.0.0/16"],
  ["machine", "/#/machine", "The machine is running"],
  ["starting", "/?machine=starting", "The machine is starting"],
  ["away", "/?machine=away", "daemon does not run"],
  ["stopped", "/?machine=stopped", "Start the machine"],
];

for (const theme of ["light", "dark"] as const) {
  for (const [name, address, text] of SCREENS) {
    test(`${name} shows its content and is accessible, ${theme}`, async ({ page }) => {
      await page.emulateMedia({ colorScheme: theme });
      await page.goto(address);
      await expect(page.getByText(text).first()).toBeVisible();
      if (name === "containers" || name === "stats") await page.waitForTimeout(2500);
      if (name === "terminal") await expect(page.locator(".xterm-accessibility-tree")).toContainText("shop-web-1");
      await page.screenshot({ path: `../docs/screenshots/${name}-${theme}.png` });
      const { violations } = await new AxeBuilder({ page }).analyze();
      expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
    });
  }
}
