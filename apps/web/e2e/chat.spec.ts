import { expect, type Person, shot, test } from "./test";

test("two people make a place and chat both ways @services", async ({ person }) => {
  const name = `Sea ${Date.now().toString(36)}`;
  const ada = await person("Ada");
  await ada.page.getByRole("main").getByRole("button", { name: "Create a guild" }).click();
  await ada.page.getByRole("dialog").getByLabel("Name").fill(name);
  await ada.page.getByRole("dialog").getByRole("button", { name: "Create" }).click();
  await expect(ada.page.getByRole("heading", { name: "No channel yet" })).toBeVisible();
  await ada.page.getByRole("main").getByRole("button", { name: "Create a channel" }).click();
  await ada.page.getByRole("dialog").getByLabel("Name").fill("general");
  await ada.page.keyboard.press("Enter");
  await expect(ada.page.getByText("Nobody has said anything yet")).toBeVisible();

  const bob = await person("Bob");
  await bob.page.getByRole("main").getByRole("link", { name: "Find guilds" }).click();
  await bob.page.getByRole("button", { name: `Join ${name}` }).click();
  await expect(bob.composer).toBeVisible();

  await ada.say("Hello, who is there?");
  await expect(bob.message("Hello, who is there?")).toContainText("Ada");
  await bob.say("It is me");
  await expect(ada.message("It is me")).toContainText("Bob");
  for (const somebody of [ada, bob]) {
    await expect(somebody.messages.getByRole("article")).toHaveText([/Hello, who is there\?$/, /It is me$/]);
    await expect(somebody.page.locator("main")).not.toContainText(ada.account.userId);
  }

  // A channel made later is there at once, for both.
  await ada.page
    .getByRole("navigation", { name: "Channels" })
    .getByRole("button", { name: "Create a channel" })
    .click();
  await ada.page.getByRole("dialog").getByLabel("Name").fill("boats");
  await ada.page.keyboard.press("Enter");
  await expect(ada.page.getByRole("heading", { name: "boats", exact: true })).toBeVisible();
  await bob.page.getByRole("link", { name: "boats" }).click();
  await ada.say("About boats");
  await expect(bob.message("About boats")).toBeVisible();
});

/** Two people who look at the same channel. */
async function two(
  person: (username: string) => Promise<Person>,
  api: import("./api").Api,
  place: (
    owner: import("./api").Account,
  ) => Promise<{ guildId: string; channelId: string; guild: string; path: string }>,
) {
  const [ada, bob] = [await person("Ada"), await person("Bob")];
  const there = await place(ada.account);
  await (await api.as(bob.account)).join(there.guildId);
  for (const { page } of [ada, bob]) {
    await page.goto(there.path);
    await expect(page.getByRole("textbox", { name: "Message #general" })).toBeVisible();
  }
  return { ada, bob, ...there };
}

test("who is typing is shown to the others, until the message comes", async ({ person, api, place }) => {
  const { ada, bob } = await two(person, api, place);
  await bob.composer.pressSequentially("I am wri");
  const indicator = ada.page.getByRole("status", { name: "Who is typing" });
  await expect(indicator).toHaveText("Bob is typing…");
  await expect(bob.page.getByRole("status", { name: "Who is typing" })).toBeEmpty();
  await bob.composer.press("Enter");
  await expect(ada.message("I am wri")).toBeVisible();
  await expect(indicator).toBeEmpty();
});

test("what was not read is marked, and where it begins", async ({ person, api, place }) => {
  const { ada, bob, guildId, path, guild } = await two(person, api, place);
  await bob.say("read at once");
  await expect(ada.message("read at once")).toBeVisible();
  const channel = await (await api.as(ada.account)).channel(guildId, "elsewhere");
  await ada.page.getByRole("link", { name: "elsewhere" }).click();
  await expect(ada.page).toHaveURL(`/guilds/${guildId}/${channel}`);
  await bob.say("not yet read");
  const link = ada.page.getByRole("link", { name: /^general.*unread messages$/ });
  await expect(link).toBeVisible();

  // Also after a reload, and from another guild.
  await ada.page.goto("/discover");
  await expect(ada.page.getByRole("link", { name: `${guild}, unread messages` })).toBeVisible();
  await ada.page.getByRole("link", { name: `${guild}, unread messages` }).click();
  await expect(ada.page).toHaveURL(path);
  await expect(ada.page.getByText("New messages", { exact: true })).toBeVisible();
  await expect(ada.page.getByRole("link", { name: "general", exact: true })).toBeVisible();
});

test("messages of one author stand together, and tell their time", async ({ person, api, place }) => {
  const { ada, bob } = await two(person, api, place);
  await ada.say("first");
  await ada.say("second");
  await expect(ada.message("second")).toBeVisible();
  await bob.say("third");
  await expect(ada.message("third")).toBeVisible();
  await expect(ada.messages.locator(".byline bdi")).toHaveText(["Ada", "Bob"]);
  await expect(ada.messages.locator(".separator")).toHaveText(["Today"]);
  const time = ada.message("first").locator("time");
  await expect(time).toHaveText("now");
  await expect(time).toHaveAttribute("title", /\d{1,2} \w+ \d{4}.*\d{2}:\d{2}:\d{2}/);
});

test("the keyboard is enough", async ({ person, api, place }) => {
  const { ada, guildId, channelId } = await two(person, api, place);
  const other = await (await api.as(ada.account)).channel(guildId, "another");
  await expect(ada.page.getByRole("link", { name: "another" })).toBeVisible();
  await expect(ada.composer).toBeFocused();
  await ada.page.keyboard.type("one line");
  await ada.page.keyboard.press("Shift+Enter");
  await ada.page.keyboard.type("and another");
  await ada.page.keyboard.press("Enter");
  await expect(ada.messages.getByRole("article")).toHaveCount(1);
  await expect(ada.messages.locator("p br")).toHaveCount(1);
  await expect(ada.composer).toHaveValue("");

  await ada.page.keyboard.type("a draft");
  await ada.page.keyboard.press("Alt+ArrowDown");
  await expect(ada.page).toHaveURL(`/guilds/${guildId}/${other}`);
  await expect(ada.composer).toHaveValue("");
  await ada.page.keyboard.press("Alt+ArrowUp");
  await expect(ada.page).toHaveURL(`/guilds/${guildId}/${channelId}`);
  await expect(ada.composer).toHaveValue("a draft");

  const create = ada.page.getByRole("button", { name: "Create a guild" });
  await create.focus();
  await ada.page.keyboard.press("Enter");
  await expect(ada.page.getByRole("dialog").getByLabel("Name")).toBeFocused();
  await ada.page.keyboard.press("Escape");
  await expect(ada.page.getByRole("dialog")).toHaveCount(0);
  await expect(create).toBeFocused();
});

test("what looks like a program in a message is harmless", async ({ person, api, place }) => {
  const { ada, bob, guildId } = await two(person, api, place);
  const attacks = [
    "<script>window.attacked=1</script>",
    '<img src=x onerror="window.attacked=1">',
    "[press me](javascript:window.attacked=1)",
    "<javascript:window.attacked=1>",
    "[press me](java\tscript:window.attacked=1)",
    "![x](data:text/html,<script>window.attacked=1</script>)",
  ];
  for (const text of attacks) await bob.say(text);
  await bob.say("[a good one](https://example.org/x)");
  const good = ada.page.getByRole("link", { name: "a good one" });
  await expect(good).toHaveAttribute("rel", "noopener noreferrer nofollow");
  await expect(good).toHaveAttribute("target", "_blank");
  await expect(ada.messages.getByRole("article")).toHaveCount(attacks.length + 1);
  await expect(ada.message("<script>window.attacked=1</script>")).toBeVisible();
  await expect(ada.messages.getByRole("link")).toHaveCount(1);
  for (const text of await ada.messages.getByText("press me").all()) await text.click();
  await expect(ada.messages.locator("img, script, iframe, svg:not(.icon)")).toHaveCount(0);

  // Names are text too.
  const named = await (await api.as(ada.account)).channel(guildId, "<img src=x onerror=window.attacked=1>");
  await bob.page.goto(`/guilds/${guildId}/${named}`);
  await expect(bob.page.getByRole("heading", { name: "<img src=x" }).first()).toBeVisible();
  for (const { page } of [ada, bob]) expect(await page.evaluate(() => "attacked" in window)).toBe(false);
});

test("who leaves a guild sees it no more, and can come back", async ({ person, api, place }) => {
  const { bob, guild } = await two(person, api, place);
  await bob.page.getByRole("button", { name: "Leave this guild" }).click();
  await bob.page.getByRole("dialog").getByRole("button", { name: "Leave" }).click();
  await expect(bob.page.getByRole("link", { name: guild })).toHaveCount(0);
  await expect(bob.page.getByRole("heading", { name: "Hello, Bob" })).toBeVisible();
  await bob.page.getByRole("main").getByRole("link", { name: "Find guilds" }).click();
  await bob.page.getByRole("button", { name: `Join ${guild}` }).click();
  await expect(bob.composer).toBeVisible();
});

test("a screen reader hears what others write", async ({ person, api, place }) => {
  const { ada, bob } = await two(person, api, place);
  await bob.say("listen to this");
  await expect(ada.page.locator("main [aria-live=polite]")).toHaveText("Bob: listen to this");
});

test("an address that leads nowhere says so", async ({ person }) => {
  const ada = await person("Ada");
  await ada.page.goto("/guilds/11111111-1111-4111-8111-111111111111/22222222-2222-4222-8222-222222222222");
  await expect(ada.page.getByRole("heading", { name: "There is nothing here" })).toBeVisible();
  await shot(ada.page, "not-found");
});
