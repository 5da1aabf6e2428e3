import AxeBuilder from "@axe-core/playwright";
import { expect, type Locator, type Page, test } from "@playwright/test";

const CONTAINER = "0001".repeat(16);

async function openLog(page: Page): Promise<Locator> {
  await page.setViewportSize({ width: 1000, height: 700 });
  await page.goto(`/?lines=100000#/containers/${CONTAINER}/logs`);
  await expect(page.getByText("100,000 lines")).toBeVisible({ timeout: 30_000 });
  await expect(page.getByText("#99999")).toBeVisible();
  return page.getByRole("log");
}

/** How far below the log's beginning each line is drawn, in pixels by the line's number. */
const offsets = (log: Locator): Promise<Record<string, number>> =>
  log.evaluate((pane) => {
    const top = pane.firstElementChild?.getBoundingClientRect().top ?? 0;
    const lines = [...pane.querySelectorAll<HTMLElement>("[data-number]")];
    const offset = (line: HTMLElement) => Math.round(line.getBoundingClientRect().top - top);
    return Object.fromEntries(lines.map((line) => [line.dataset["number"] ?? "", offset(line)]));
  });

/** The number of the first line that is seen. */
const firstSeen = (log: Locator): Promise<number> =>
  log.evaluate((pane) => {
    const top = pane.getBoundingClientRect().top + 2;
    const lines = [...pane.querySelectorAll<HTMLElement>("[data-number]")];
    return Number(lines.find((line) => line.getBoundingClientRect().bottom > top)?.dataset["number"]);
  });

/** Waits until scrolling has ended. */
async function still(log: Locator): Promise<void> {
  let last = -1;
  await expect
    .poll(async () => {
      const [before, now] = [last, await log.evaluate((pane) => pane.scrollTop)];
      last = now;
      return now === before;
    })
    .toBe(true);
}

async function middleOf(element: Locator): Promise<{ x: number; y: number }> {
  const box = await element.boundingBox();
  if (box === null) throw new Error("it is not drawn");
  return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
}

test("a hundred thousand lines wrap where the pane ends, and what is read stays in view", async ({ page }) => {
  const log = await openLog(page);
  // So wide that some lines fit beside their times, and others do not.
  await page.setViewportSize({ width: 1200, height: 700 });
  const wrap = page.getByRole("button", { name: "Wrap" });
  await wrap.click();
  await page.getByRole("button", { name: "Times" }).click();
  await expect(page.getByText("#99999")).toBeInViewport();
  expect(await page.locator(".line").count()).toBeLessThan(120);
  expect(await log.evaluate((pane) => pane.scrollWidth - pane.clientWidth)).toBe(0);

  const end = await firstSeen(log);
  await log.hover();
  await page.mouse.wheel(0, -3000);
  await expect.poll(() => firstSeen(log)).toBeLessThan(end - 50);
  await still(log);
  await expect(page.getByRole("button", { name: "Follow" })).toHaveAttribute("aria-pressed", "false");

  // Rows are counted and not measured: a line has to be in the same place whichever line is the first that is drawn.
  const before = await offsets(log);
  const heights = await page.locator(".line").evaluateAll((lines) => lines.map((line) => line.clientHeight));
  expect(new Set(heights).size).toBeGreaterThan(1);
  await page.mouse.wheel(0, -200);
  await expect.poll(async () => Object.keys(await offsets(log))[0]).not.toBe(Object.keys(before)[0]);
  await still(log);
  const after = await offsets(log);
  const both = Object.keys(after).filter((number) => number in before);
  expect(both.length).toBeGreaterThan(10);
  for (const number of both) expect(after[number], number).toBe(before[number]);

  const seen = await firstSeen(log);
  const away = async () => Math.abs((await firstSeen(log)) - seen);
  await wrap.click();
  await expect.poll(() => log.evaluate((pane) => pane.scrollWidth > pane.clientWidth)).toBe(true);
  await expect.poll(away).toBeLessThanOrEqual(1);
  await page.getByLabel("Search", { exact: true }).last().fill("order 7731");
  await expect(page.getByText("14,285 matches")).toBeVisible();
  await page.getByLabel("Search", { exact: true }).last().fill("");
  await expect(page.getByText("100,000 lines")).toBeVisible();
  await expect.poll(away).toBeLessThanOrEqual(1);
});

test("what went to the error output has a mark that is read out, and is shown alone or left out", async ({ page }) => {
  await page.goto(`/#/containers/${CONTAINER}/logs`);
  await expect(page.getByText("400 lines")).toBeVisible();
  const lines = page.getByRole("log").locator(".line");
  const mark = page.getByRole("img", { name: "Error output" });
  const failed = lines.filter({ hasText: "payment provider" });
  await expect(failed.first()).toBeAttached();
  await expect(failed.filter({ hasNot: mark })).toHaveCount(0);
  await expect(lines.filter({ has: mark, hasNotText: "payment provider" })).toHaveCount(0);
  await expect(mark.last()).toHaveText("E");

  const streams = page.getByRole("group", { name: "Streams" });
  await streams.getByRole("button", { name: "Errors" }).click();
  await expect(page.getByText("57 of 400 lines")).toBeVisible();
  await expect(lines.first()).toBeAttached();
  await expect(lines.filter({ hasNot: mark })).toHaveCount(0);
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => violation.id)).toEqual([]);
  await streams.getByRole("button", { name: "Output" }).click();
  await expect(page.getByText("343 of 400 lines")).toBeVisible();
  await expect(lines.first()).toBeAttached();
  await expect(lines.filter({ has: mark })).toHaveCount(0);
  await streams.getByRole("button", { name: "Both" }).click();
  await expect(page.getByText("400 lines", { exact: true })).toBeVisible();
});

test("a drag within what is seen selects text, and beyond it lines, which are copied", async ({ page, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const log = await openLog(page);
  const last = await middleOf(page.locator(".line", { hasText: "#99998" }));
  const first = await middleOf(page.locator(".line", { hasText: "#99994" }));
  const left = ((await log.boundingBox())?.x ?? 0) + 40;
  await page.mouse.move(left, first.y);
  await page.mouse.down();
  await page.mouse.move(left + 60, last.y, { steps: 5 });
  await page.mouse.up();
  expect(await page.evaluate(() => String(getSelection()))).toContain("#99996");
  await expect(page.getByText(/ selected$/)).toHaveCount(0);

  const above = ((await log.boundingBox())?.y ?? 0) - 60;
  // Beside the selected text, which would be dragged itself.
  await page.mouse.move(left + 150, last.y);
  await page.mouse.down();
  await page.mouse.move(left + 150, above, { steps: 5 });
  await expect(page.getByText(/(?:[5-9]\d\d|\d,\d{3}) selected$/)).toBeVisible({ timeout: 20_000 });
  await page.mouse.up();
  await expect.poll(() => page.evaluate(() => String(getSelection()))).toBe("");
  await page.keyboard.press("Control+c");
  await expect(page.getByText("· Copied")).toBeVisible();
  const copied = (await page.evaluate(() => navigator.clipboard.readText())).split("\n");
  expect(copied.length).toBeGreaterThan(500);
  const numbers = copied.map((line) => Number(line.split("#").at(-1)));
  expect(numbers).toEqual(copied.map((_, index) => 99_999 - copied.length + index));
  expect(copied.join("")).not.toContain("\u001b");
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map((violation) => violation.id)).toEqual([]);
});

test("lines are selected with Shift and a click, with arrows, and all of them", async ({ page, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const log = await openLog(page);
  await log.hover();
  await page.mouse.wheel(0, -1900);
  await expect(page.getByRole("button", { name: "Follow" })).toHaveAttribute("aria-pressed", "false");
  await page.mouse.wheel(0, -1900);
  const { x, y } = await middleOf(log);
  const under = () =>
    page.evaluate(([x, y]) => {
      const line = document.elementFromPoint(x ?? 0, y ?? 0)?.closest<HTMLElement>("[data-number]");
      return Number(line?.dataset["number"]);
    }, [x, y]);
  await expect.poll(under).toBeLessThan(99_830);
  await still(log);
  const from = await under();
  await page.mouse.click(x, y);
  await expect(page.getByText(/ selected$/)).toHaveCount(0);
  await page.mouse.wheel(0, 1900);
  await expect.poll(under).toBeGreaterThan(from + 90);
  await still(log);
  const to = await under();
  await page.keyboard.down("Shift");
  await page.mouse.click(x, y);
  await page.keyboard.up("Shift");
  await expect(page.getByText(`· ${to - from + 1} selected`)).toBeVisible();

  await page.keyboard.press("Escape");
  await expect(page.getByText(/ selected$/)).toHaveCount(0);
  await expect(log).toBeVisible();
  await page.keyboard.press("Shift+ArrowDown");
  await page.keyboard.press("Shift+ArrowDown");
  await page.keyboard.press("Shift+PageDown");
  await page.keyboard.press("Shift+Home");
  await page.keyboard.press("Shift+End");
  await page.keyboard.press("Control+a");
  await expect(page.getByText("· 100,000 selected")).toBeVisible();
  await page.getByRole("button", { name: "Copy", exact: true }).click();
  await expect(page.getByText("· Copied")).toBeVisible();
  expect(await page.evaluate(async () => (await navigator.clipboard.readText()).split("\n").length)).toBe(100_000);
});

for (const theme of ["light", "dark"] as const) {
  test(`what is searched for is marked in its colours, and Enter goes from match to match, ${theme}`, async ({ page }) => {
    await page.emulateMedia({ colorScheme: theme });
    await page.goto(`/#/containers/${CONTAINER}/logs`);
    await expect(page.getByText("400 lines")).toBeVisible();
    const search = page.getByLabel("Search", { exact: true }).last();
    await search.fill("error order");
    await expect(page.getByText("57 matches")).toBeVisible();
    await expect(page.locator(".line .found.c1").first()).toHaveText("ERROR");
    const { violations } = await new AxeBuilder({ page }).analyze();
    expect(violations.map((violation) => [violation.id, violation.nodes.map((node) => node.html)])).toEqual([]);
    const chosen = page.locator(".line.chosen");
    await search.press("Enter");
    await expect(chosen).toHaveCount(1);
    const first = await chosen.textContent();
    await search.press("Enter");
    await expect(chosen).not.toHaveText(first ?? "");
    await expect(chosen).toHaveCount(1);
    await expect(chosen).toBeInViewport();
    await search.press("Shift+Enter");
    await expect(chosen).toHaveText(first ?? "");
    await expect(search).toBeFocused();
  });
}

test.describe("elsewhere", () => {
  test.use({ timezoneId: "Asia/Kolkata" });

  test("the times of a log are those of this computer, with their day where it is not today", async ({ page }) => {
    await page.goto(`/#/containers/${CONTAINER}/logs`);
    await page.getByRole("button", { name: "Times" }).click();
    await expect(page.locator(".line .time").last()).toHaveText("2026-03-01 16:30:03.591");
    await page.clock.setFixedTime(new Date("2026-03-01T12:00:00Z"));
    await page.reload();
    await page.getByRole("button", { name: "Times" }).click();
    await expect(page.locator(".line .time").last()).toHaveText("16:30:03.591");
  });
});
