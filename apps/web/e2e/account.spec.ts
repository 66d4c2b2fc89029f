import { randomUUID } from "node:crypto";
import { expect, logIn, test } from "./test";

test("a visitor registers @services", async ({ visitor: page }) => {
  await page.goto("/");
  await expect(page).toHaveURL("/login");
  await page.getByRole("link", { name: "Create an account" }).click();
  await page.getByLabel("Username").fill("Ada");
  await page.getByLabel("Email").fill(`${randomUUID()}@example.org`);
  await page.getByLabel("Password").fill("correct horse");
  await page.getByRole("button", { name: "Create account" }).click();
  await expect(page.getByRole("heading", { name: "Hello, Ada" })).toBeVisible();
  await expect(page).toHaveURL("/");
});

test("a user logs in, and comes to where it wanted to go", async ({ visitor: page, api, place }) => {
  const ada = await api.account("Ada");
  const { path } = await place(ada);
  await page.goto(path);
  await expect(page).toHaveURL("/login");
  await logIn(page, ada);
  await expect(page).toHaveURL(path);
  await expect(page.getByRole("heading", { name: "general", exact: true })).toBeVisible();
});

test("a wrong password is refused, with the same words as an unknown address", async ({ visitor: page, api }) => {
  const ada = await api.account("Ada");
  await page.goto("/login");
  for (const email of [ada.email, `${randomUUID()}@example.org`]) {
    await logIn(page, { email, password: "not the password" });
    await expect(page.getByRole("alert")).toHaveText("Invalid credentials.");
    await expect(page).toHaveURL("/login");
  }
  await logIn(page, ada);
  await expect(page.getByRole("button", { name: "Log out" })).toBeVisible();
});

test("an address is registered once", async ({ visitor: page, api }) => {
  const ada = await api.account("Ada");
  await page.goto("/register");
  await page.getByLabel("Username").fill("Another Ada");
  await page.getByLabel("Email").fill(ada.email);
  await page.getByLabel("Password").fill("another password");
  await page.getByRole("button", { name: "Create account" }).click();
  await expect(page.getByRole("alert")).toHaveText("Email already in use.");
  await expect(page).toHaveURL("/register");
});

test("what breaks a rule is told in words", async ({ visitor: page }) => {
  await page.goto("/register");
  await page.getByLabel("Username").fill("everyone");
  await page.getByLabel("Email").fill(`${randomUUID()}@example.org`);
  await page.getByLabel("Password").fill("correct horse");
  await page.getByRole("button", { name: "Create account" }).click();
  await expect(page.getByRole("alert")).toContainText("reserved");
});

test("a reload keeps the session, and nothing that a script can read does", async ({ person, place }) => {
  const ada = await person("Ada");
  const { path } = await place(ada.account);
  await ada.page.goto(path);
  await ada.say("before");
  await expect(ada.message("before")).toBeVisible();
  await ada.page.reload();
  await expect(ada.message("before")).toBeVisible();
  await ada.say("after");
  await expect(ada.message("after")).toBeVisible();

  const readable = await ada.page.evaluate(() =>
    JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]),
  );
  expect(readable).not.toMatch(/eyJ|token|password/i);
  const databases = await ada.page.evaluate(() => indexedDB.databases());
  expect(databases).toEqual([]);
});

test("log-out ends the session for good, in every tab", async ({ person }) => {
  const ada = await person("Ada");
  const other = await ada.page.context().newPage();
  await other.goto("/");
  await expect(other.getByRole("heading", { name: "Hello, Ada" })).toBeVisible();

  const cookies = await ada.page.context().cookies();
  await ada.page.getByRole("button", { name: "Log out" }).click();
  await expect(ada.page).toHaveURL("/login");
  await expect(other).toHaveURL("/login");
  await expect(other.getByText("Your session has ended")).toBeVisible();

  // Who kept the cookie has nothing.
  await ada.page.context().addCookies(cookies);
  await ada.page.goto("/");
  await expect(ada.page).toHaveURL("/login");
});

test("two tabs work side by side, also when both are loaded at once", async ({ person, place }) => {
  const ada = await person("Ada");
  const { path } = await place(ada.account);
  await ada.page.goto(path);
  const other = await ada.page.context().newPage();
  await other.goto(path);
  const box = other.getByRole("textbox", { name: "Message #general" });
  await box.fill("from the other tab");
  await box.press("Enter");
  await expect(ada.message("from the other tab")).toBeVisible();
  await ada.say("from this tab");
  await expect(other.getByText("from this tab")).toBeVisible();

  await Promise.all([ada.page.reload(), other.reload()]);
  for (const page of [ada.page, other]) await expect(page.getByText("from this tab")).toBeVisible();
  await ada.page.reload();
  await expect(ada.message("from this tab")).toBeVisible();
});

test("a server that is away is waited for, and the session goes on", async ({ person }) => {
  const ada = await person("Ada");
  // The page itself is there; what it asks the server for is not.
  await ada.page.route("**/api/auth/refresh", (route) => route.abort("connectionrefused"));
  await ada.page.reload();
  await expect(ada.page.getByRole("heading", { name: "The server cannot be reached" })).toBeVisible();
  expect(new URL(ada.page.url()).pathname).not.toBe("/login");
  await ada.page.unroute("**/api/auth/refresh");
  await expect(ada.page.getByRole("heading", { name: "Hello, Ada" })).toBeVisible();
});
