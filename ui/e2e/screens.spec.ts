import AxeBuilder from "@axe-core/playwright";
import { expect, test } from "@playwright/test";

/** A digest as the host in memory makes it. */
function digestOf(name: string): string {
  let number = 7;
  for (const letter of name) number = (number * 31 + letter.charCodeAt(0)) % 1_000_003;
  return `sha256:${number.toString(16).padStart(8, "0").repeat(8)}`;
}

const CONTAINER = "0001".repeat(16);
const SCREENS: [string, string, string][] = [
  ["containers", "/", "shop-web-1"],
  ["first-run", "/?containers=0", "Open the welcome page"],
  ["logs", `/#/containers/${CONTAINER}/logs`, "400 lines"],
  ["stats", `/#/containers/${CONTAINER}/stats`, "Memory"],
  ["terminal", `/#/containers/${CONTAINER}/terminal`, "Terminal"],
  ["files", `/#/containers/${CONTAINER}/files`, "Drop files here"],
  ["processes", `/#/containers/${CONTAINER}/processes`, "worker process"],
  ["mounts", `/#/containers/${CONTAINER}/mounts`, "/home/mara/shop/nginx.conf"],
  ["inspect", `/#/containers/${CONTAINER}/inspect`, "WorkingDir"],
  ["run", "/#/containers/new", "docker run --detach IMAGE"],
  ["images", "/#/images", "postgres:17"],
  ["volumes", "/#/volumes", "118 MiB"],
  ["networks", "/#/networks", "172.17.0.0/16"],
  ["registries", "/#/registries", "ghcr.io"],
  ["registry", `/#/registries/${encodeURIComponent("registry.old.example:5000")}`, "in plain text, for every program"],
  ["sign-in", "/#/registries/new", "docker login --username USER"],
  ["image", `/#/images/${encodeURIComponent(digestOf("nginx:1.29-alpine"))}`, "apk add --no-cache nginx"],
  ["volume", "/#/volumes/shop_data", "com.docker.compose.project"],
  ["volume-files", "/#/volumes/shop_data/files", "orders.db"],
  ["network", `/#/networks/${digestOf("network/shop_default").slice(7)}`, "Connected"],
  ["compose", "/#/compose", "shop"],
  ["project", "/#/compose/shop", "shop-db-1"],
  ["project-logs", "/#/compose/shop/logs", "answered in"],
  ["project-file", "/#/compose/shop/file", "Save"],
  ["builds", "/#/builds", "shop/api:dev"],
  ["build", "/#/builds/00000000-0000-4000-8000-000000000003", "RUN npm run build"],
  ["build-failed", "/#/builds/00000000-0000-4000-8000-000000000002", "exit code: 1"],
  ["build-log", "/#/builds/00000000-0000-4000-8000-000000000003/log", "412 modules transformed"],
  ["build-form", "/#/builds/new", "docker build FOLDER"],
  ["tasks", "/#/images", "postgres:17"],
  ["machine", "/#/machine", "The machine is running"],
  ["settings", "/#/machine/settings", "machine.memory"],
  ["access", "/#/machine/access", "Shared folders"],
  ["machine-logs", "/#/machine/logs", "engine: line 59"],
  ["machine-terminal", "/#/machine/terminal", "A shell of the machine itself"],
  ["diagnostics", "/#/machine/diagnostics", "== doctor =="],
  ["machines", "/#/machine/machines", "Create a machine…"],
  ["starting", "/?machine=starting", "The machine is starting"],
  ["away", "/?machine=away", "daemon does not run"],
  ["stopped", "/?machine=stopped", "Start the machine"],
];

/** Screens with curves: a minute of them is drawn before they are looked at. */
const LIVE = new Set(["containers", "stats"]);

for (const theme of ["light", "dark"] as const) {
  for (const [name, address, text] of SCREENS) {
    test(`${name} shows its content and is accessible, ${theme}`, async ({ page }) => {
      await page.emulateMedia({ colorScheme: theme });
      if (LIVE.has(name)) await page.clock.install();
      await page.goto(address);
      await expect(page.getByText(text).first()).toBeVisible();
      // Second by second: the page draws between them.
      if (LIVE.has(name)) for (let second = 0; second < 60; second += 1) await page.clock.runFor(1000);
      if (name === "tasks") {
        await page.keyboard.press("Control+j");
        await page.getByRole("button", { name: "Pull" }).click();
        await page.getByLabel("Image", { exact: true }).fill("ghcr.io/shop/search:2");
        await page.keyboard.press("Enter");
        await expect(page.getByText("Downloading").first()).toBeVisible();
      }
      if (name === "machine-terminal") await expect(page.locator(".xterm-accessibility-tree")).toContainText("cove:~#");
      if (name === "terminal") await expect(page.locator(".xterm-accessibility-tree")).toContainText("shop-web-1");
      await page.screenshot({ path: `../docs/screenshots/${name}-${theme}.png` });
      const { violations } = await new AxeBuilder({ page }).analyze();
      expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
    });
  }
}

test.describe("in German", () => {
  test.use({ locale: "de-DE" });

  // Colours are the same in each language, names and labels are not.
  for (const [name, address] of SCREENS) {
    test(`${name} is accessible in German`, async ({ page }) => {
      await page.goto(address);
      await expect(page.locator("main")).not.toBeEmpty();
      await expect(page.getByText("Wird gelesen…")).toHaveCount(0);
      await expect(page.locator("html")).toHaveAttribute("lang", "de");
      const { violations } = await new AxeBuilder({ page }).analyze();
      expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
    });
  }
});
