import { expect, test } from "./test";

const COUNT = 500;

test("500 messages of history load on scrolling up, without a jump", async ({ person, api, place }) => {
  // Some 700 steps of a wheel, each drawn twice, without a graphics card.
  test.setTimeout(240_000);
  const ada = await person("Ada");
  const { channelId, path } = await place(ada.account);
  const actor = api.behalf(ada.account.userId);
  for (let n = 1; n <= COUNT; n++) await actor.say(channelId, `message ${n}${"\nanother line".repeat(n % 4)}`);

  await ada.page.goto(path);
  await expect(ada.messages.getByText(`message ${COUNT}`, { exact: true })).toBeVisible();

  // Scrolls as a wheel does, and looks whether a message that stays in sight ever moves against the wheel.
  const log = await ada.messages.evaluate(async (list) => {
    const seen = new Set<string>();
    const jumps: string[] = [];
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    const look = () => {
      const box = list.getBoundingClientRect();
      const rows = [...list.querySelectorAll("article")].map((row) => {
        return {
          row,
          name: /message \d+/.exec(row.textContent ?? "")?.[0] ?? "",
          top: row.getBoundingClientRect().top - box.top,
        };
      });
      for (const { name } of rows) seen.add(name);
      return rows.find(({ top }) => top > 40 && top < box.height);
    };
    const until = performance.now() + 120_000;
    while (!list.querySelector(".beginning") || list.scrollTop > 0) {
      if (performance.now() > until) break;
      const before = look();
      list.scrollTop -= 120;
      await frame();
      await frame();
      const after = before && look();
      if (!before || !after || !before.row.isConnected) continue;
      const moved = before.row.getBoundingClientRect().top - list.getBoundingClientRect().top - before.top;
      // Up to the wheel's step downwards; less where the end of what is loaded was reached.
      if (moved < -2 || moved > 122) jumps.push(`${before.name} moved by ${moved}`);
    }
    look();
    return { seen: seen.size, jumps };
  });
  expect(log.jumps).toEqual([]);
  expect(log.seen).toBe(COUNT);
  await expect(ada.messages.getByText("This is where the channel begins.")).toBeVisible();
  await expect(ada.messages.getByText(/^message 1(?!\d)/)).toBeVisible();
  expect(await ada.messages.getByRole("article").count()).toBeLessThan(80);

  // What comes now does not pull the reader away.
  await actor.say(channelId, "something new");
  await ada.page.getByRole("button", { name: "New messages" }).click();
  await expect(ada.message("something new")).toBeVisible();
  await expect(ada.page.getByRole("button", { name: /New messages|Jump to newest/ })).toHaveCount(0);

  // At the end, what comes is followed.
  await actor.say(channelId, "and more");
  await expect(ada.message("and more")).toBeInViewport();

  await ada.messages.evaluate((list) => list.scrollBy(0, -2_000));
  await ada.page.getByRole("button", { name: "Jump to newest" }).click();
  await expect(ada.message("and more")).toBeInViewport();
  await ada.messages.evaluate((list) => list.scrollBy(0, -2_000));
  await ada.page.keyboard.press("Escape");
  await expect(ada.message("and more")).toBeInViewport();
});

test("older messages that could not be loaded are asked for again", async ({ person, api, place }) => {
  const ada = await person("Ada");
  const { channelId, path } = await place(ada.account);
  const actor = api.behalf(ada.account.userId);
  for (let n = 1; n <= 120; n++) await actor.say(channelId, `message ${n}`);
  await ada.page.goto(path);
  await expect(ada.message("message 120")).toBeVisible();
  const older = /\/messages\?.*(pageState|before)=/;
  await ada.page.route(older, (route) => route.abort("connectionreset"));
  await ada.messages.evaluate((list) => list.scrollTo(0, 0));
  await expect(ada.page.getByText("Older messages could not be loaded.")).toBeVisible();
  await ada.page.unroute(older);
  await ada.page.getByRole("button", { name: "Try again" }).click();
  await ada.messages.evaluate((list) => list.scrollTo(0, 0));
  await expect(ada.message("message 20")).toBeAttached();
});
