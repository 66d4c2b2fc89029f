import { devices } from "@playwright/test";
import { expect, expectAccessible, logIn, type Person, shot, test } from "./test";

// Every page in every look: axe finds nothing, and a picture is kept.

const PHONE = { ...devices["Pixel 7"], viewport: { width: 390, height: 844 }, defaultBrowserType: undefined };
const LOOKS = [
  { name: "desktop-light", phone: false, options: { colorScheme: "light" } },
  { name: "desktop-dark", phone: false, options: { colorScheme: "dark" } },
  { name: "phone-light", phone: true, options: { ...PHONE, colorScheme: "light" } },
  { name: "phone-dark", phone: true, options: { ...PHONE, colorScheme: "dark" } },
] as const;

for (const { name, phone, options } of LOOKS) {
  test(`every page: ${name}`, async ({ browser, pages, person, api }) => {
    // Movement would be half-way through in a picture.
    const look = { ...options, reducedMotion: "reduce" } as const;
    const page = await pages(browser, look);
    const keep = async (what: string, of = page) => {
      await expectAccessible(of);
      await shot(of, `${what}-${name}`);
    };
    await page.goto("/login");
    await expect(page.getByRole("heading", { name: "Welcome back" })).toBeVisible();
    await keep("login");
    await logIn(page, { email: "nobody@example.org", password: "not a password" });
    await expect(page.getByRole("alert")).toContainText("Invalid credentials");
    await keep("login-refused");
    await page.goto("/register");
    await expect(page.getByRole("heading", { name: "Create an account" })).toBeVisible();
    await keep("register");

    const ada = await person("Ada Lovelace", look);
    await expect(ada.page.getByRole("heading", { name: "Hello, Ada Lovelace" })).toBeVisible();
    await keep("home-empty", ada.page);

    const actor = await api.as(ada.account);
    const guildId = await actor.guild("Sea Friends");
    const channelId = await actor.channel(guildId, "general");
    const empty = await actor.guild("An empty guild");
    await actor.guild("Rustaceans");
    await ada.page.goto(`/guilds/${empty}`);
    await expect(ada.page.getByRole("heading", { name: "No channel yet" })).toBeVisible();
    await keep("guild-empty", ada.page);

    await ada.page.goto("/discover");
    await expect(ada.page.getByRole("list", { name: "Guilds to join" })).toBeVisible();
    await keep("discover", ada.page);

    await ada.page.goto(`/guilds/${guildId}/${channelId}`);
    await expect(ada.page.getByText("Nobody has said anything yet")).toBeVisible();
    await keep("channel-empty", ada.page);

    await converse(api, ada, guildId, channelId);
    await expect(ada.message("See you at the harbour then.")).toBeVisible();
    await keep("chat", ada.page);

    if (phone) {
      await ada.page.getByRole("button", { name: "Guilds and channels", exact: true }).click();
      await expect(ada.page.getByRole("navigation", { name: "Channels" })).toBeVisible();
      await keep("drawer", ada.page);
      await ada.page.getByRole("button", { name: "Create a channel" }).click();
    } else {
      await ada.page.getByRole("button", { name: "Create a channel" }).click();
    }
    await expect(ada.page.getByRole("dialog")).toBeVisible();
    await keep("dialog", ada.page);
    await ada.page.keyboard.press("Escape");
    await expect(ada.page.getByRole("dialog")).toHaveCount(0);
    if (phone) await ada.page.keyboard.press("Escape");

    await ada.page.context().setOffline(true);
    await expect(ada.page.getByText("You are offline.")).toBeAttached();
    await keep("offline", ada.page);
    await ada.page.context().setOffline(false);

    await ada.page.goto("/nowhere");
    await expect(ada.page.getByRole("heading", { name: "There is nothing here" })).toBeVisible();
    await keep("nowhere", ada.page);
  });
}

test("a phone: guilds and channels are a drawer", async ({ person, place, api }) => {
  const ada = await person("Ada", PHONE);
  const { guildId, path } = await place(ada.account);
  const other = await (await api.as(ada.account)).channel(guildId, "boats");
  await ada.page.goto(path);
  await expect(ada.composer).toBeVisible();
  const drawer = ada.page.getByRole("button", { name: "Guilds and channels", exact: true });
  const link = ada.page.getByRole("link", { name: "boats" });
  await expect(link).toBeHidden();

  await drawer.tap();
  await expect(link).toBeInViewport();
  await ada.page.keyboard.press("Escape");
  await expect(link).toBeHidden();
  await expect(drawer).toBeFocused();

  await drawer.tap();
  await link.tap();
  await expect(ada.page).toHaveURL(`/guilds/${guildId}/${other}`);
  await expect(link).toBeHidden();
  await ada.composer.fill("from a phone");
  await ada.page.getByRole("button", { name: "Send" }).tap();
  await expect(ada.message("from a phone")).toBeInViewport();

  const width = await ada.page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  expect(width[0]).toBe(width[1]);
});

/** A conversation to look at. */
async function converse(api: import("./api").Api, ada: Person, guildId: string, channelId: string): Promise<void> {
  const [me, bob, cem] = [
    api.behalf(ada.account.userId),
    api.behalf(await api.user("Bob")),
    api.behalf(await api.user("Cem Özdemir")),
  ];
  for (const member of [bob, cem]) await member.join(guildId);
  await me.channel(guildId, "boats-and-sails");
  const tides = await me.channel(guildId, "tides");
  await bob.say(channelId, "Good morning! Who is up for sailing on *Saturday*?");
  await bob.say(channelId, "The wind will be from the north-west, **four to five**.");
  await cem.say(channelId, "I am. Here is what we need:\n\n> two boats\n> one `anchor`");
  await cem.say(channelId, '```rust\nfn main() {\n    println!("ahoy");\n}\n```');
  await me.say(
    channelId,
    "Count me in. The tide table is at https://tides.example.org/saturday and I ~~lost~~ found the keys.",
  );
  await cem.say(tides, "High water is at 11:40");
  await bob.say(channelId, "See you at the harbour then.");
}
