import { expect, type Page, test } from "@playwright/test";

const CONTAINER = "0001".repeat(16);

/** What a part of a progress bar that the browser makes itself looks like, for which no script of the page can ask. */
async function styleOfPart(page: Page, part: string): Promise<Record<string, string>> {
  const session = await page.context().newCDPSession(page);
  await session.send("DOM.enable");
  await session.send("CSS.enable");
  const { root } = await session.send("DOM.getDocument", { depth: -1, pierce: true });
  const nodes = [root];
  for (const node of nodes) {
    if (node.attributes?.includes(part)) {
      const { computedStyle } = await session.send("CSS.getComputedStyleForNode", { nodeId: node.nodeId });
      return Object.fromEntries(computedStyle.map(({ name, value }) => [name, value]));
    }
    nodes.push(...(node.children ?? []), ...(node.shadowRoots ?? []));
  }
  throw new Error(`nothing has a ${part}`);
}

for (const reducedMotion of ["no-preference", "reduce"] as const) {
  const moves = reducedMotion === "no-preference";

  test(`a bar ${moves ? "moves" : "stands still"} where the preference is ${reducedMotion}`, async ({ page }) => {
    await page.emulateMedia({ reducedMotion });
    await page.goto("/?machine=starting");
    const bar = page.getByRole("progressbar").first();
    await expect(bar).toBeVisible();
    const sweep = () => bar.evaluate((progress) => progress.getAnimations().map((animation) => animation.playState));
    await expect.poll(sweep).toEqual(moves ? ["running"] : []);
    // It is of the browser's own part that the bar's growing is, which a rule for all elements does not reach.
    expect(await styleOfPart(page, "-webkit-progress-value")).toMatchObject({ "transition-duration": moves ? "0.3s" : "0s" });
  });

  test(`a terminal's cursor ${moves ? "blinks" : "does not blink"} where the preference is ${reducedMotion}`, async ({ page }) => {
    await page.emulateMedia({ reducedMotion });
    await page.goto(`/#/containers/${CONTAINER}/terminal`);
    await expect(page.locator(".xterm-accessibility-tree")).toContainText("shop-web-1:/#");
    await expect(page.locator(".xterm-cursor")).toHaveCount(1);
    await expect(page.locator(".xterm-cursor-blink")).toHaveCount(moves ? 1 : 0);
  });
}
