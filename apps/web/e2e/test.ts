import { randomUUID } from "node:crypto";
import AxeBuilder from "@axe-core/playwright";
import {
  type Browser,
  type BrowserContextOptions,
  test as base,
  type ConsoleMessage,
  expect,
  type Page,
} from "@playwright/test";
import { type Account, Api } from "./api";
import { type Server, serve } from "./server";

export { expect };

/** A person at a browser of its own. */
export class Person {
  constructor(
    readonly page: Page,
    readonly account: Account,
  ) {}

  get composer() {
    return this.page.getByRole("textbox", { name: /^Message #/ });
  }
  get messages() {
    return this.page.getByRole("region", { name: /^Messages in / });
  }
  /** Messages that say just this. */
  message(text: string) {
    return this.messages.getByRole("article").filter({ has: this.page.getByText(text, { exact: true }) });
  }
  async say(text: string): Promise<void> {
    await this.composer.fill(text);
    await this.composer.press("Enter");
  }
}

interface Tests {
  server: Server;
  api: Api;
  /** A page of the server's on which nobody is logged in. */
  visitor: Page;
  /** Somebody with an account who has logged in through the page. */
  person(username: string, options?: BrowserContextOptions): Promise<Person>;
  /** A guild of `owner` with one channel, both made for this test alone. */
  place(owner: Account): Promise<{ guildId: string; channelId: string; guild: string; path: string }>;
}

interface Workers {
  shared: Server;
}

/** What a page says that no page should: broken promises, defects, and whatever the policy refuses. */
function problems(page: Page): string[] {
  const found: string[] = [];
  page.on("pageerror", (error) => found.push(error.stack ?? error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && !isExpected(message)) found.push(message.text());
  });
  return found;
}

/** The browser reports each refused request as an error, also those that the page handles. A file of the page's own is none. */
function isExpected(message: ConsoleMessage): boolean {
  const at = message.location().url;
  const { pathname } = new URL(URL.canParse(at) ? at : "none:");
  const refused = message.text().startsWith("Failed to load resource") && pathname.startsWith("/api/");
  return refused || /^WebSocket connection to '.*\/ws' failed/.test(message.text());
}

const WATCH_POLICY = () =>
  addEventListener("securitypolicyviolation", (event) => {
    console.error(
      `the policy refused ${event.effectiveDirective} ${event.blockedURI} at ${event.sourceFile}:${event.lineNumber}`,
    );
  });

export const test = base.extend<
  Tests & { pages: (browser: Browser, options?: BrowserContextOptions) => Promise<Page> },
  Workers
>({
  shared: [
    // biome-ignore lint/correctness/noEmptyPattern: Playwright reads the fixture's needs from the pattern
    async ({}, use) => {
      const server = await serve();
      await use(server);
      await server.end();
    },
    { scope: "worker" },
  ],
  server: async ({ shared }, use) => use(shared),
  api: async ({ server }, use) => use(new Api(server.url)),

  // Every page of a test is watched, and each is in a browser context of its own.
  pages: async ({ server }, use) => {
    const watched: { page: Page; found: string[] }[] = [];
    await use(async (browser, options) => {
      const context = await browser.newContext({ ...options, baseURL: server.url });
      await context.addInitScript(WATCH_POLICY);
      context.on("page", (page) => watched.push({ page, found: problems(page) }));
      return context.newPage();
    });
    for (const { found } of watched) expect(found, "errors in the page").toEqual([]);
    for (const { page } of watched) await page.context().close();
  },

  visitor: async ({ browser, pages }, use) => use(await pages(browser)),

  person: async ({ browser, pages, api }, use) => {
    await use(async (username, options) => {
      const account = await api.account(username);
      const page = await pages(browser, options);
      await page.goto("/login");
      await logIn(page, account);
      await expect(page.locator("main.pane")).toBeVisible();
      return new Person(page, account);
    });
  },

  place: async ({ api }, use) => {
    await use(async (owner) => {
      const actor = await api.as(owner);
      // The list of guilds is everybody's: a name that no other test has.
      const guild = `Guild ${randomUUID().slice(0, 8)}`;
      const guildId = await actor.guild(guild);
      const channelId = await actor.channel(guildId, "general");
      return { guildId, channelId, guild, path: `/guilds/${guildId}/${channelId}` };
    });
  },
});

/** A test that stops its server has one to itself, or all would feel it. */
export const alone = test.extend({
  // biome-ignore lint/correctness/noEmptyPattern: Playwright reads the fixture's needs from the pattern
  server: async ({}, use) => {
    const server = await serve();
    await use(server);
    await server.end();
  },
});

export async function logIn(page: Page, { email, password }: Pick<Account, "email" | "password">): Promise<void> {
  await page.getByLabel("Email").fill(email);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
}

/** Nothing on the page keeps somebody with a screen reader or a keyboard out. */
export async function expectAccessible(page: Page): Promise<void> {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join("\n")}`)).toEqual([]);
}

/** Keeps a picture to look at. */
export async function shot(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: `e2e/shots/${name}.png` });
}
