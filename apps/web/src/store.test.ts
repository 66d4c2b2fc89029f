import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Message } from "./sdk";
import { isGuildUnread, isNewer, isUnread, Store } from "./store";
import { FakeSdk, messageId, sdkError } from "./testing/fake";

const ADA = { userId: "ada", username: "Ada", email: "ada@example.org" };

function storage(): Pick<Storage, "getItem" | "setItem"> & { kept: Map<string, string> } {
  const kept = new Map<string, string>();
  return { kept, getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => void kept.set(key, value) };
}

/** A store whose user is logged in and connected, in a guild with two channels. */
async function connected(sdk = new FakeSdk(), kept = storage()) {
  sdk.session = ADA;
  if (sdk.allGuilds.length === 0) sdk.guild("sea", "Sea", "general", "boats");
  const store = new Store(kept);
  sdk.say = store.apply;
  await store.start(sdk);
  sdk.say({ kind: "connection", state: "ready" });
  return { sdk, store, kept };
}

function contents(store: Store, channelId = "general"): string[] {
  return store.state.timelines[channelId]?.messages.map(({ content }) => content) ?? [];
}

/** Lets promises that are settled do what comes after them. */
const settle = () => vi.advanceTimersByTimeAsync(0);

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("the session", () => {
  it("is taken up from an earlier page", async () => {
    const { store } = await connected();
    expect(store.state.phase).toBe("signedIn");
    expect(store.state.guilds?.map(({ name }) => name)).toEqual(["Sea"]);
  });

  it("is none without a cookie", async () => {
    const store = new Store(storage());
    await store.start(new FakeSdk());
    expect(store.state.phase).toBe("signedOut");
    expect(store.state.notice).toBeNull();
  });

  it("is asked for again while the server is unreachable", async () => {
    const sdk = new FakeSdk();
    sdk.session = ADA;
    sdk.refreshErrors = [sdkError("unreachable"), sdkError("unreachable")];
    const store = new Store(storage());
    const started = store.start(sdk);
    await settle();
    expect(store.state.phase).toBe("unreachable");
    await vi.advanceTimersByTimeAsync(999);
    expect(sdk.refreshErrors).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(sdk.refreshErrors).toHaveLength(0);
    store.retry();
    await started;
    expect(store.state.phase).toBe("signedIn");
  });

  it("is not asked for again where asking does not help", async () => {
    const sdk = new FakeSdk();
    sdk.refreshErrors = [sdkError("internal", "it broke")];
    const store = new Store(storage());
    await store.start(sdk);
    expect(store.state).toMatchObject({ phase: "signedOut", notice: "It broke." });
  });

  it("is renewed once when it ends, and ends for good where that is refused", async () => {
    const { store, sdk } = await connected();
    sdk.say({ kind: "connection", state: "ended", reason: "unauthorized" });
    await settle();
    expect(store.state.phase).toBe("signedIn");
    sdk.say({ kind: "connection", state: "ready" });
    sdk.session = null;
    sdk.say({ kind: "connection", state: "ended", reason: "unauthorized" });
    await vi.waitFor(() => expect(store.state.phase).toBe("signedOut"));
    expect(store.state.notice).toContain("has ended");
  });

  it("is not renewed for ever", async () => {
    const { store, sdk } = await connected();
    sdk.say({ kind: "connection", state: "ended", reason: "unauthorized" });
    await settle();
    sdk.say({ kind: "connection", state: "ended", reason: "unauthorized" });
    expect(store.state.phase).toBe("signedOut");
  });

  it("can be taken back from who evicted it", async () => {
    const { store, sdk } = await connected();
    sdk.say({ kind: "connection", state: "ended", reason: "evicted" });
    expect(store.state.connection).toMatchObject({ state: "ended", evicted: true });
    expect(store.state.phase).toBe("signedIn");
    await store.comeBack();
    sdk.say({ kind: "connection", state: "ready" });
    expect(store.state.connection.state).toBe("ready");
  });

  it("leaves nothing behind after log-out", async () => {
    const { store, sdk } = await connected();
    store.open("general");
    store.drafts.set("general", "half a word");
    sdk.arrive(sdk.message("general", 1, "bob", "hi"));
    await store.logout();
    expect(store.state).toMatchObject({ user: null, guilds: null, channels: {}, timelines: {}, names: {} });
    expect(store.drafts.size).toBe(0);
    sdk.arrive(sdk.message("general", 2, "bob", "late"));
    expect(store.state.timelines).toEqual({});
  });

  it("goes on where the server did not hear of the log-out", async () => {
    const { store, sdk } = await connected();
    sdk.logout = () => Promise.reject(sdkError("unreachable"));
    await expect(store.logout()).rejects.toMatchObject({ code: "unreachable" });
    expect(store.state.phase).toBe("signedIn");
  });
});

describe("the connection", () => {
  it("says whether it was there before, and when it is tried again", async () => {
    const { store, sdk } = await connected();
    vi.setSystemTime(1_000_000);
    sdk.say({ kind: "connection", state: "waiting", retryInMs: 1_500 });
    expect(store.state.connection).toEqual({ state: "waiting", again: true, retryAt: 1_001_500 });
    sdk.say({ kind: "connection", state: "connecting" });
    expect(store.state.connection).toEqual({ state: "connecting", again: true });
  });
});

describe("a timeline", () => {
  it("follows the splices, in order, without changing what was read before", async () => {
    const { store, sdk } = await connected();
    const [a, b, c, d] = ["a", "b", "c", "d"].map((text, n) => sdk.message("general", n, "bob", text)) as [
      Message,
      Message,
      Message,
      Message,
    ];
    sdk.timelines.general = { messages: [c], hasOlder: true, loaded: true };
    store.open("general");
    expect(contents(store)).toEqual(["c"]);
    const before = store.state.timelines.general?.messages;
    sdk.say({
      kind: "messages",
      channelId: "general",
      splices: [
        { at: 0, remove: 0, insert: [a, b] },
        { at: 3, remove: 0, insert: [d] },
        { at: 1, remove: 1, insert: [] },
      ],
      hasOlder: false,
    });
    expect(contents(store)).toEqual(["a", "c", "d"]);
    expect(store.state.timelines.general?.hasOlder).toBe(false);
    expect(before).toEqual([c]);
  });

  it("is kept as long as somebody shows it", async () => {
    const { store, sdk } = await connected();
    const first = store.open("general");
    const second = store.open("general");
    first();
    expect(sdk.closed).toEqual([]);
    second();
    expect(sdk.closed).toEqual(["general"]);
    expect(store.state.timelines.general).toBeUndefined();
  });

  it("says when it could not be loaded, and loads again", async () => {
    const { store, sdk } = await connected();
    const opened = sdk.open;
    sdk.timelines.general = { messages: [], hasOlder: false, loaded: false };
    sdk.open = () => Promise.reject(sdkError("unreachable"));
    store.open("general");
    await vi.waitFor(() => expect(store.state.timelines.general?.state).toBe("failed"));
    sdk.open = opened;
    store.reload("general");
    await vi.waitFor(() => expect(store.state.timelines.general?.state).toBe("loaded"));
  });

  it("asks for older messages once at a time, and says when that failed", async () => {
    const { store, sdk } = await connected();
    store.open("general");
    let asked = 0;
    let fail: (error: Error) => void = () => {};
    sdk.loadOlder = () => {
      asked += 1;
      return new Promise((_, reject) => {
        fail = reject;
      });
    };
    const load = store.loadOlder("general");
    await store.loadOlder("general");
    expect(asked).toBe(1);
    fail(sdkError("unreachable"));
    await load;
    expect(store.state.timelines.general?.older).toBe("failed");
  });
});

describe("sending", () => {
  it("shows the message at once, then the stored one in its place", async () => {
    const { store, sdk } = await connected();
    store.open("general");
    store.send("general", "hello");
    const [sent] = sdk.sends;
    const nonce = sent?.nonce ?? "";
    expect(store.state.pending.general).toMatchObject([{ content: "hello", state: "sending", nonce }]);
    sdk.arrive(sdk.message("general", 1, "ada", "hello", { nonce }));
    expect(store.state.pending.general).toEqual([]);
    expect(contents(store)).toEqual(["hello"]);
    sent?.done({ nonce, messageId: messageId(1), channelId: "general" });
    await settle();
    expect(store.state.pending.general).toEqual([]);
  });

  it("knows the stored message by its id where it comes without the nonce", async () => {
    const { store, sdk } = await connected();
    store.open("general");
    store.send("general", "hello");
    const nonce = sdk.sends[0]?.nonce ?? "";
    sdk.sends[0]?.done({ nonce, messageId: messageId(1), channelId: "general" });
    await vi.waitFor(() => expect(store.state.pending.general).toMatchObject([{ state: "sent" }]));
    sdk.arrive(sdk.message("general", 1, "ada", "hello"));
    expect(store.state.pending.general).toEqual([]);
  });

  it("does not take somebody else's message for its own", async () => {
    const { store, sdk } = await connected();
    store.open("general");
    store.send("general", "hello");
    sdk.arrive(sdk.message("general", 1, "bob", "hello", { nonce: sdk.sends[0]?.nonce }));
    expect(store.state.pending.general).toHaveLength(1);
  });

  it("keeps what failed, and tries again under the same nonce", async () => {
    const { store, sdk } = await connected();
    store.open("general");
    store.send("general", "hello");
    const nonce = sdk.sends[0]?.nonce ?? "";
    sdk.sends[0]?.fail(sdkError("outcome_unknown"));
    await vi.waitFor(() => expect(store.state.pending.general?.[0]?.state).toBe("failed"));
    expect(store.state.pending.general?.[0]?.error?.code).toBe("outcome_unknown");
    store.resend("general", nonce);
    store.resend("general", nonce);
    expect(store.state.pending.general).toMatchObject([{ state: "sending", nonce }]);
    expect(sdk.sends.map((send) => send.nonce)).toEqual([nonce, nonce]);
    sdk.sends[1]?.done({ nonce, messageId: messageId(1), channelId: "general" });
    sdk.arrive(sdk.message("general", 1, "ada", "hello", { nonce }));
    await settle();
    expect(store.state.pending.general).toEqual([]);
  });

  it("keeps what failed while another channel is shown", async () => {
    const { store, sdk } = await connected();
    const close = store.open("general");
    store.send("general", "one");
    store.send("general", "two");
    close();
    sdk.sends[0]?.fail(sdkError("unreachable"));
    sdk.sends[1]?.done({ nonce: sdk.sends[1].nonce, messageId: messageId(2), channelId: "general" });
    await vi.waitFor(() => expect(store.state.pending.general).toMatchObject([{ content: "one", state: "failed" }]));
    store.discard("general", sdk.sends[0]?.nonce ?? "");
    expect(store.state.pending.general).toEqual([]);
  });
});

describe("typing", () => {
  it("is shown for a while, and ends with the message", async () => {
    const { store, sdk } = await connected();
    sdk.say({ kind: "typing", channelId: "general", userId: "bob", timestamp: 0 });
    sdk.say({ kind: "typing", channelId: "general", userId: "ada", timestamp: 0 });
    await vi.advanceTimersByTimeAsync(5_000);
    sdk.say({ kind: "typing", channelId: "general", userId: "cem", timestamp: 0 });
    expect(Object.keys(store.state.typing.general ?? {})).toEqual(["bob", "cem"]);
    await vi.advanceTimersByTimeAsync(3_000);
    expect(Object.keys(store.state.typing.general ?? {})).toEqual(["cem"]);
    sdk.say({ kind: "activity", channelId: "general", messageId: messageId(1), authorId: "cem" });
    expect(store.state.typing.general).toEqual({});
  });

  it("is told now and then, and anew after a message", async () => {
    const { store, sdk } = await connected();
    for (let i = 0; i < 5; i++) {
      store.type("general");
      await vi.advanceTimersByTimeAsync(1_000);
    }
    expect(sdk.typed).toHaveLength(2);
    store.send("general", "hello");
    store.type("general");
    expect(sdk.typed).toHaveLength(3);
  });
});

describe("unread", () => {
  it("is what came since the channel was last read, also over reloads", async () => {
    const { store, sdk, kept } = await connected();
    expect(isUnread(store.state, "general")).toBe(false);
    sdk.say({ kind: "activity", channelId: "general", messageId: messageId(5), authorId: "bob" });
    expect(isUnread(store.state, "general")).toBe(true);
    expect(isUnread(store.state, "boats")).toBe(false);
    expect(isGuildUnread(store.state, "sea")).toBe(true);

    for (const channel of sdk.allChannels.sea ?? []) {
      if (channel.channelId === "general") channel.lastMessageId = messageId(5);
    }
    const reloaded = await connected(sdk, kept);
    expect(isUnread(reloaded.store.state, "general")).toBe(true);
    reloaded.store.markRead("general");
    expect(isUnread(reloaded.store.state, "general")).toBe(false);
    expect(isUnread((await connected(sdk, kept)).store.state, "general")).toBe(false);
  });

  it("is nothing that was there when the channel was first seen, and nothing of one's own", async () => {
    const sdk = new FakeSdk();
    sdk.guild("sea", "Sea", "general");
    for (const channel of sdk.allChannels.sea ?? []) channel.lastMessageId = messageId(3);
    const { store } = await connected(sdk);
    expect(isUnread(store.state, "general")).toBe(false);
    sdk.say({ kind: "activity", channelId: "general", messageId: messageId(4), authorId: "ada" });
    expect(isUnread(store.state, "general")).toBe(false);
  });

  it("follows what another tab has read", async () => {
    const { store, sdk, kept } = await connected();
    const other = await connected(new FakeSdk(), kept);
    for (const one of [sdk, other.sdk]) {
      one.say({ kind: "activity", channelId: "general", messageId: messageId(5), authorId: "bob" });
    }
    other.store.markRead("general");
    expect(isUnread(store.state, "general")).toBe(true);
    store.storageChanged({ key: "jiscord.read.ada" });
    expect(isUnread(store.state, "general")).toBe(false);
  });

  it("survives a storage with nonsense in it, or none", async () => {
    const kept = storage();
    kept.kept.set("jiscord.read.ada", '{"general": 7, "boats"');
    expect((await connected(new FakeSdk(), kept)).store.state.read).toEqual({ general: "", boats: "" });
    const refused = () => {
      throw new Error("forbidden");
    };
    const none = { ...storage(), getItem: refused, setItem: refused };
    expect((await connected(new FakeSdk(), none)).store.state.phase).toBe("signedIn");
  });

  it("keeps nothing but ids of messages", async () => {
    const { store, sdk, kept } = await connected();
    sdk.say({ kind: "activity", channelId: "general", messageId: messageId(5), authorId: "bob" });
    store.markRead("general");
    expect([...kept.kept]).toEqual([["jiscord.read.ada", JSON.stringify({ general: messageId(5), boats: "" })]]);
  });
});

describe("subscribers", () => {
  it("are told once for all that changes before the next picture", async () => {
    const { store, sdk } = await connected();
    store.open("general");
    await vi.advanceTimersByTimeAsync(1_000);
    const told = vi.fn();
    const stop = store.subscribe(told);
    for (let n = 1; n <= 100; n++) sdk.arrive(sdk.message("general", n, "bob", "hi"));
    expect(contents(store)).toHaveLength(100);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(told).toHaveBeenCalledTimes(1);
    stop();
    sdk.arrive(sdk.message("general", 101, "bob", "hi"));
    await vi.advanceTimersByTimeAsync(1_000);
    expect(told).toHaveBeenCalledTimes(1);
  });
});

describe("names", () => {
  it("come with messages, and are asked for once where they are missing", async () => {
    const { store, sdk } = await connected();
    store.open("general");
    sdk.arrive(sdk.message("general", 1, "bob", "hi", { author: { userId: "bob", username: "Bob" } }));
    store.askName("bob");
    store.askName("cem");
    store.askName("cem");
    await vi.waitFor(() => expect(store.state.names).toMatchObject({ ada: "Ada", bob: "Bob", cem: "cem" }));
    expect(sdk.asked).toEqual(["cem"]);
  });
});

describe("isNewer", () => {
  it("goes by the time in the id, not by its text", () => {
    const earlier = "ffffffff-0000-11f0-8000-010000000000";
    const later = "00000000-0001-11f0-8000-010000000000";
    expect(isNewer(later, earlier)).toBe(true);
    expect(isNewer(earlier, later)).toBe(false);
    expect(isNewer(earlier, earlier)).toBe(false);
    expect(isNewer(earlier, undefined)).toBe(true);
    expect(isNewer(earlier, "")).toBe(true);
  });
});
