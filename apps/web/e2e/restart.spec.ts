import { alone, expect } from "./test";

alone(
  "a server restarted mid-conversation: the page recovers, and shows what was missed @services",
  async ({ person, server, api, place }) => {
    const [ada, bob] = [await person("Ada"), await person("Bob")];
    const { guildId, channelId, path } = await place(ada.account);
    const actor = await api.as(bob.account);
    await actor.join(guildId);
    for (const { page } of [ada, bob]) await page.goto(path);
    await ada.say("before");
    await expect(bob.message("before")).toBeVisible();

    await server.stop();
    await expect(ada.page.getByText(/The connection is lost|Reconnecting/)).toBeVisible();
    // What is written meanwhile waits.
    await ada.say("written while it was away");
    await expect(ada.message("written while it was away")).toBeVisible();

    // Ada's page cannot hear of the first words after the restart.
    await ada.page.context().setOffline(true);
    await server.start();
    const missed = ["missed 1", "missed 2", "missed 3"];
    for (const text of missed) await actor.say(channelId, text);
    await ada.page.context().setOffline(false);

    for (const somebody of [ada, bob]) {
      for (const text of ["before", "written while it was away", ...missed]) {
        await expect(somebody.message(text)).toHaveCount(1);
      }
      await expect(somebody.page.getByText(/The connection is lost|Reconnecting|You are offline/)).toHaveCount(0);
    }
    await bob.say("and on it goes");
    await expect(ada.message("and on it goes")).toBeVisible();
    await expect(ada.messages.locator(".sending, .failed")).toHaveCount(0);
  },
);
