import type { Page, WebSocketRoute } from "@playwright/test";
import { expect, shot, test } from "./test";

/** Stands between the page and the gateway. `sent` sees each frame of the page's, and may keep it from going on. */
async function between(page: Page, sent: (frame: { op: string; d: Record<string, string> }) => boolean) {
  const state: { socket?: WebSocketRoute; server?: WebSocketRoute } = {};
  await page.routeWebSocket("**/ws", (socket) => {
    state.socket = socket;
    state.server = socket.connectToServer();
    socket.onMessage((text) => {
      if (sent(JSON.parse(String(text)))) state.server?.send(text);
    });
  });
  return state;
}

test("a message is shown while it is on its way", async ({ person, place }) => {
  const ada = await person("Ada");
  const { path } = await place(ada.account);
  const held: object[] = [];
  const wire = await between(ada.page, (frame) => {
    if (frame.op !== "SEND_MESSAGE") return true;
    held.push(frame);
    return false;
  });
  await ada.page.goto(path);
  await ada.say("on its way");
  await expect(ada.message("on its way")).toHaveClass(/sending/);
  await expect.poll(() => held.length).toBe(1);
  await shot(ada.page, "sending");
  wire.server?.send(JSON.stringify(held[0]));
  await expect(ada.message("on its way")).not.toHaveClass(/sending/);
  await expect(ada.message("on its way")).toHaveCount(1);
});

test("a message that failed is kept, and sent again once", async ({ person, place }) => {
  const ada = await person("Ada");
  const { path } = await place(ada.account);
  const nonces: string[] = [];
  const wire = await between(ada.page, ({ op, d }) => {
    if (op !== "SEND_MESSAGE") return true;
    nonces.push(d.nonce ?? "");
    if (nonces.length > 1) return true;
    const error = { code: "storage_full", message: "the disk is full", op, nonce: d.nonce };
    wire.socket?.send(JSON.stringify({ op: "ERROR", d: error }));
    return false;
  });
  await ada.page.goto(path);
  await ada.say("important");
  const failure = ada.messages.getByRole("alert");
  await expect(failure).toContainText("Not sent. The disk is full.");
  await shot(ada.page, "failed");
  await failure.getByRole("button", { name: "Try again" }).click();
  await expect(failure).toHaveCount(0);
  await expect(ada.message("important")).toHaveCount(1);
  await ada.page.reload();
  await expect(ada.message("important")).toHaveCount(1);
  expect(new Set(nonces).size).toBe(1);

  nonces.length = 0;
  await ada.say("not so important");
  await failure.getByRole("button", { name: "Remove" }).click();
  await expect(ada.page.getByText("not so important")).toHaveCount(0);
});

test("a session that was taken over says so, and can be taken back", async ({ person, place }) => {
  const ada = await person("Ada");
  const { path } = await place(ada.account);
  const wire = await between(ada.page, () => true);
  await ada.page.goto(path);
  await ada.say("here");
  await expect(ada.message("here")).toBeVisible();
  wire.socket?.send(JSON.stringify({ op: "INVALID_SESSION", d: null }));
  await wire.socket?.close({ code: 4010, reason: "evicted" });
  await expect(ada.page.getByText("This session was taken over elsewhere.")).toBeVisible();
  await ada.page.getByRole("button", { name: "Come back here" }).click();
  await expect(ada.page.getByText("This session was taken over elsewhere.")).toHaveCount(0);
  await ada.say("here again");
  await expect(ada.message("here again")).not.toHaveClass(/sending/);
});

test("a connection that is cut comes back by itself", async ({ person, place, api }) => {
  const ada = await person("Ada");
  const { path, channelId } = await place(ada.account);
  const wire = await between(ada.page, () => true);
  await ada.page.goto(path);
  await ada.say("one");
  await expect(ada.message("one")).not.toHaveClass(/sending/);
  const first = wire.socket;
  await first?.close({ code: 1001 });
  await api.behalf(ada.account.userId).say(channelId, "two");
  await expect(ada.message("two")).toHaveCount(1);
  await expect.poll(() => wire.socket !== first).toBe(true);
});
