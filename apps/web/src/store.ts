/**
 * All that the page shows, in one place. The SDK tells what changed, the store keeps a copy that never changes in place,
 * and components read the parts they need (`useStore`).
 */

import {
  type Change,
  type Channel,
  errorOf,
  type Guild,
  type Message,
  type Sdk,
  type SdkError,
  sentence,
  type User,
} from "./sdk";

/** A message of this page's user that is not in the timeline yet. */
export interface Pending {
  nonce: string;
  content: string;
  createdAt: string;
  state: "sending" | "sent" | "failed";
  /** Known once it is stored. */
  messageId?: string;
  /** Why it was not sent. */
  error?: SdkError;
}

/** An open channel's messages, oldest first. */
export interface Timeline {
  messages: Message[];
  hasOlder: boolean;
  state: "loading" | "loaded" | "failed";
  older: "idle" | "loading" | "failed";
}

/** How it stands with the user's session. */
export type Phase = "starting" | "broken" | "unreachable" | "signedOut" | "signedIn";

/** How it stands with the connection to the gateway. */
export interface Connection {
  /** "ended": it does not come back by itself. */
  state: "connecting" | "ready" | "waiting" | "ended";
  /** Another session of this one's kind took its place. */
  evicted?: boolean;
  /** Unix milliseconds at which it is tried again. */
  retryAt?: number;
  /** It was there before. */
  again: boolean;
}

export interface State {
  phase: Phase;
  user: User | null;
  /** Something to tell the user once, such as why the session ended. */
  notice: string | null;
  connection: Connection;
  /** Sorted by name; null before the first list came. */
  guilds: Guild[] | null;
  /** By guild; absent while not loaded. */
  channels: Readonly<Record<string, Channel[]>>;
  /** The open channels. */
  timelines: Readonly<Record<string, Timeline>>;
  /** By channel, in the order in which they were sent. */
  pending: Readonly<Record<string, Pending[]>>;
  /** By channel and user: until when "is typing" is shown. */
  typing: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** The newest message known, by channel. */
  latest: Readonly<Record<string, string>>;
  /** The newest message that was read, by channel; "" for none. */
  read: Readonly<Record<string, string>>;
  /** Names of users, by id. */
  names: Readonly<Record<string, string>>;
}

const SIGNED_OUT: State = {
  phase: "signedOut",
  user: null,
  notice: null,
  connection: { state: "connecting", again: false },
  guilds: null,
  channels: {},
  timelines: {},
  pending: {},
  typing: {},
  latest: {},
  read: {},
  names: {},
};

const ENDED = "Your session has ended. Log in again.";
const TYPING_MS = 8_000;
const TYPING_EVERY_MS = 4_000;
/** What may be otherwise when it is tried again. */
const PASSES = new Set(["unreachable", "timeout", "closed", "rate_limited", "busy", "unavailable", "outcome_unknown"]);
const RETRY_MS = [1_000, 2_000, 4_000, 8_000];

/** Whether message `a` is newer than `b`: ids are version 1 UUIDs, whose time is spread over three fields. */
export function isNewer(a: string, b: string | undefined): boolean {
  const key = (id: string) => id.slice(14, 18) + id.slice(9, 13) + id.slice(0, 8) + id.slice(19);
  return !b || key(a) > key(b);
}

/** Before the next picture: what changes in between is drawn once, however much it is. A hidden page draws none. */
function soon(then: () => void): void {
  if (document.visibilityState === "visible") requestAnimationFrame(then);
  else setTimeout(then, 100);
}

export class Store {
  #state: State = { ...SIGNED_OUT, phase: "starting" };
  #subscribers = new Set<() => void>();
  #told = true;
  #sdk: Sdk | undefined;
  #typingTimer: ReturnType<typeof setTimeout> | undefined;
  #typedAt = new Map<string, number>();
  #asked = new Set<string>();
  #open = new Map<string, number>();
  #retry: { timer: ReturnType<typeof setTimeout>; now: () => void } | undefined;
  /** The session ended and was begun anew once; another end before it was ready is final. */
  #renewed = false;
  /** What was typed and not sent, by channel. */
  readonly drafts = new Map<string, string>();
  /** The channel that was shown last, by guild. */
  readonly lastChannel = new Map<string, string>();

  /** `storage` keeps the read markers: ids of messages, nothing secret. */
  constructor(private readonly storage: Pick<Storage, "getItem" | "setItem">) {}

  readonly subscribe = (subscriber: () => void): (() => void) => {
    this.#subscribers.add(subscriber);
    return () => this.#subscribers.delete(subscriber);
  };

  get state(): State {
    return this.#state;
  }

  get sdk(): Sdk {
    if (!this.#sdk) throw new Error("the SDK is not loaded");
    return this.#sdk;
  }

  #set(change: Partial<State>): void {
    this.#state = { ...this.#state, ...change };
    if (this.#told) {
      this.#told = false;
      soon(() => {
        this.#told = true;
        for (const subscriber of this.#subscribers) subscriber();
      });
    }
  }

  // The session.

  /** Takes the SDK, and takes up the session that an earlier page left in the refresh cookie. */
  async start(sdk: Sdk): Promise<void> {
    this.#sdk = sdk;
    await this.#renew(0);
  }

  /** The SDK could not be loaded. */
  broken(): void {
    this.#set({ phase: "broken" });
  }

  /** Asks for the session until the server answers. */
  async #renew(attempt: number): Promise<void> {
    try {
      const user = await this.sdk.refresh();
      if (user) this.#signedIn(user);
      else this.#signedOut(this.#state.user ? ENDED : null);
    } catch (thrown) {
      const error = errorOf(thrown);
      if (!PASSES.has(error.code)) {
        this.#signedOut(sentence(error));
        return;
      }
      if (this.#state.phase !== "signedIn") this.#set({ phase: "unreachable" });
      const wait = RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)];
      await new Promise<void>((resolve) => {
        this.#retry = { timer: setTimeout(resolve, wait), now: resolve };
      });
      clearTimeout(this.#retry?.timer);
      this.#retry = undefined;
      await this.#renew(attempt + 1);
    }
  }

  /** The server was not reachable at the start: asks again now. */
  retry(): void {
    this.#retry?.now();
  }

  async login(email: string, password: string): Promise<void> {
    this.#signedIn(await this.sdk.login(email, password));
  }

  async register(username: string, email: string, password: string): Promise<void> {
    await this.sdk.register(username, email, password);
    await this.login(email, password);
  }

  /** Ends the session here and at the server. Rejects where the server did not hear of it; the session goes on then. */
  async logout(): Promise<void> {
    await this.sdk.logout();
    this.#signedOut(null);
  }

  /** Begins the session anew that ended here, such as one that was evicted. */
  async comeBack(): Promise<void> {
    this.#set({ connection: { state: "connecting", again: true } });
    await this.#renew(0);
  }

  #signedIn(user: User): void {
    this.#set({ phase: "signedIn", user, notice: null, read: this.#readMarkers(user.userId) });
    this.#names({ [user.userId]: user.username });
    this.#guildsChanged();
  }

  #signedOut(notice: string | null): void {
    clearTimeout(this.#typingTimer);
    this.#typedAt.clear();
    this.#asked.clear();
    this.#open.clear();
    this.drafts.clear();
    this.lastChannel.clear();
    this.#renewed = false;
    this.#set({ ...SIGNED_OUT, notice });
  }

  dismissNotice(): void {
    this.#set({ notice: null });
  }

  // What the SDK says.

  readonly apply = (change: Change): void => {
    if (this.#state.phase === "signedOut") return;
    switch (change.kind) {
      case "connection":
        this.#connection(change);
        break;
      case "guilds":
        this.#guildsChanged();
        break;
      case "channels":
        this.#channelsChanged(change.guildId);
        break;
      case "messages":
        this.#messagesChanged(change);
        break;
      case "activity":
        this.#activity(change.channelId, change.messageId, change.authorId);
        break;
      case "typing":
        this.#typing(change.channelId, change.userId);
        break;
      case "failed":
        this.#set({ notice: sentence(change.error) });
        break;
    }
  };

  #connection({ state, reason, retryInMs = 0 }: Extract<Change, { kind: "connection" }>): void {
    const again = this.#state.connection.again || this.#state.connection.state === "ready";
    if (state === "ready") {
      this.#renewed = false;
      this.#set({ connection: { state, again: true } });
      this.#guildsChanged();
    } else if (state === "connecting") {
      this.#set({ connection: { state, again } });
    } else if (state === "waiting") {
      this.#set({ connection: { state, again, retryAt: Date.now() + retryInMs } });
    } else if (reason !== "unauthorized") {
      this.#set({ connection: { state: "ended", evicted: reason === "evicted", again } });
    } else if (this.#state.phase === "signedIn") {
      if (this.#renewed) {
        this.#signedOut(ENDED);
      } else {
        this.#renewed = true;
        this.#set({ connection: { state: "connecting", again } });
        void this.#renew(0);
      }
    }
  }

  #guildsChanged(): void {
    const guilds = this.sdk.guilds();
    // An empty list means nothing before the session has begun.
    if (guilds.length === 0 && this.#state.guilds === null && this.#state.connection.state !== "ready") return;
    this.#set({ guilds });
    this.#loadNextChannels();
  }

  /** Unread markers need every guild's channels: they are loaded one guild after the other. */
  #loadNextChannels(): void {
    const missing = this.#state.guilds?.find((guild) => !this.#state.channels[guild.guildId]);
    if (missing) this.loadChannels(missing.guildId);
  }

  /** Sees to it that the guild's channels are there, now or soon. */
  loadChannels(guildId: string): void {
    if (this.sdk.channels(guildId).length > 0) this.#channelsChanged(guildId);
  }

  #channelsChanged(guildId: string): void {
    const known = this.#state.channels[guildId] !== undefined;
    const channels = this.sdk.channels(guildId);
    const latest = { ...this.#state.latest };
    const read = { ...this.#state.read };
    for (const { channelId, lastMessageId } of channels) {
      if (lastMessageId && isNewer(lastMessageId, latest[channelId])) latest[channelId] = lastMessageId;
      // What was there when the channel was first seen counts as read.
      read[channelId] ??= latest[channelId] ?? "";
    }
    this.#set({ channels: { ...this.#state.channels, [guildId]: channels }, latest, read });
    this.#keepReadMarkers();
    if (!known) this.#loadNextChannels();
  }

  #messagesChanged({ channelId, splices, hasOlder }: Extract<Change, { kind: "messages" }>): void {
    const timeline = this.#state.timelines[channelId];
    if (!timeline) return;
    const messages = [...timeline.messages];
    const names: Record<string, string> = {};
    const arrived = new Set<string>();
    for (const { at, remove, insert } of splices) {
      messages.splice(at, remove, ...insert);
      for (const { messageId, nonce, authorId, author } of insert) {
        if (author) names[authorId] = author.username;
        if (authorId === this.#state.user?.userId) {
          arrived.add(messageId);
          if (nonce) arrived.add(nonce);
        }
      }
    }
    const still = this.#state.pending[channelId]?.filter(
      ({ nonce, messageId }) => !arrived.has(nonce) && !(messageId && arrived.has(messageId)),
    );
    const last = messages.at(-1)?.messageId;
    this.#set({
      timelines: { ...this.#state.timelines, [channelId]: { ...timeline, messages, hasOlder } },
      pending: still ? { ...this.#state.pending, [channelId]: still } : this.#state.pending,
      latest:
        last && isNewer(last, this.#state.latest[channelId])
          ? { ...this.#state.latest, [channelId]: last }
          : this.#state.latest,
    });
    this.#names(names);
  }

  #activity(channelId: string, messageId: string, authorId: string): void {
    if (isNewer(messageId, this.#state.latest[channelId])) {
      const latest = { ...this.#state.latest, [channelId]: messageId };
      const mine = authorId === this.#state.user?.userId;
      this.#set(mine ? { latest, read: { ...this.#state.read, [channelId]: messageId } } : { latest });
      if (mine) this.#keepReadMarkers();
    }
    this.#stopsTyping(channelId, authorId);
  }

  #names(names: Record<string, string>): void {
    if (Object.entries(names).some(([id, name]) => this.#state.names[id] !== name)) {
      this.#set({ names: { ...this.#state.names, ...names } });
    }
  }

  /** Finds out what a user is called. */
  askName(userId: string): void {
    if (this.#state.names[userId] || this.#asked.has(userId)) return;
    this.#asked.add(userId);
    this.sdk.username(userId).then(
      (name) => this.#names({ [userId]: name }),
      () => this.#asked.delete(userId),
    );
  }

  // Typing.

  #typing(channelId: string, userId: string): void {
    if (userId === this.#state.user?.userId) return;
    const typing = { ...this.#state.typing[channelId], [userId]: Date.now() + TYPING_MS };
    this.#set({ typing: { ...this.#state.typing, [channelId]: typing } });
    this.#typingTimer ??= setTimeout(this.#forgetTyping, TYPING_MS);
  }

  #stopsTyping(channelId: string, userId: string): void {
    if (!this.#state.typing[channelId]?.[userId]) return;
    const { [userId]: _, ...others } = this.#state.typing[channelId];
    this.#set({ typing: { ...this.#state.typing, [channelId]: others } });
  }

  #forgetTyping = (): void => {
    this.#typingTimer = undefined;
    const now = Date.now();
    let next = Number.POSITIVE_INFINITY;
    const typing: Record<string, Record<string, number>> = {};
    for (const [channelId, users] of Object.entries(this.#state.typing)) {
      const left = Object.entries(users).filter(([, until]) => until > now);
      if (left.length > 0) typing[channelId] = Object.fromEntries(left);
      for (const [, until] of left) next = Math.min(next, until);
    }
    this.#set({ typing });
    if (next < Number.POSITIVE_INFINITY) this.#typingTimer = setTimeout(this.#forgetTyping, next - now);
  };

  /** Tells the others that the user writes, now and then while it does. */
  type(channelId: string): void {
    const now = Date.now();
    if (now - (this.#typedAt.get(channelId) ?? 0) < TYPING_EVERY_MS) return;
    this.#typedAt.set(channelId, now);
    this.sdk.typing(channelId);
  }

  // Channels.

  /** Shows a channel and keeps it current until the returned function is called. */
  open(channelId: string): () => void {
    const users = this.#open.get(channelId) ?? 0;
    this.#open.set(channelId, users + 1);
    if (users === 0) void this.#load(channelId);
    return () => {
      const left = (this.#open.get(channelId) ?? 0) - 1;
      if (left > 0) {
        this.#open.set(channelId, left);
      } else if (this.#open.delete(channelId)) {
        this.sdk.close(channelId);
        const { [channelId]: _, ...timelines } = this.#state.timelines;
        // What is stored is in the history when the channel is opened again.
        const pending = (this.#state.pending[channelId] ?? []).filter(({ state }) => state !== "sent");
        this.#set({ timelines, pending: { ...this.#state.pending, [channelId]: pending } });
      }
    };
  }

  /** The channel could not be loaded: tries again. */
  reload(channelId: string): void {
    void this.#load(channelId);
  }

  async #load(channelId: string): Promise<void> {
    const { messages, hasOlder, loaded } = this.sdk.timeline(channelId);
    this.#timeline(channelId, { messages, hasOlder, state: loaded ? "loaded" : "loading", older: "idle" }, true);
    try {
      await this.sdk.open(channelId);
      this.#timeline(channelId, { state: "loaded" });
    } catch {
      this.#timeline(channelId, { state: "failed" });
    }
  }

  /** Reads one page more of the history. */
  async loadOlder(channelId: string): Promise<void> {
    if (this.#state.timelines[channelId]?.older === "loading") return;
    this.#timeline(channelId, { older: "loading" });
    try {
      await this.sdk.loadOlder(channelId);
      this.#timeline(channelId, { older: "idle" });
    } catch {
      this.#timeline(channelId, { older: "failed" });
    }
  }

  #timeline(channelId: string, change: Partial<Timeline>, create = false): void {
    const timeline = this.#state.timelines[channelId];
    if (!timeline && !create) return;
    const empty: Timeline = { messages: [], hasOlder: false, state: "loading", older: "idle" };
    this.#set({ timelines: { ...this.#state.timelines, [channelId]: { ...(timeline ?? empty), ...change } } });
  }

  // Sending.

  /** Shows the message at once, and sends it. */
  send(channelId: string, content: string): void {
    const nonce = crypto.randomUUID();
    const pending: Pending = { nonce, content, createdAt: new Date().toISOString(), state: "sending" };
    this.#typedAt.delete(channelId);
    this.#pending(channelId, (all) => [...all, pending]);
    void this.#deliver(channelId, pending);
  }

  /** Sends a message that failed again. The nonce stays, so it is stored once, whatever became of the first try. */
  resend(channelId: string, nonce: string): void {
    const failed = this.#state.pending[channelId]?.find((pending) => pending.nonce === nonce);
    if (failed?.state !== "failed") return;
    const pending: Pending = { ...failed, state: "sending", error: undefined };
    this.#pending(channelId, (all) => [...all.filter((other) => other !== failed), pending]);
    void this.#deliver(channelId, pending);
  }

  /** Forgets a message that failed. */
  discard(channelId: string, nonce: string): void {
    this.#pending(channelId, (all) => all.filter((pending) => pending.nonce !== nonce));
  }

  async #deliver(channelId: string, { nonce, content }: Pending): Promise<void> {
    try {
      const { messageId } = await this.sdk.send(channelId, content, nonce);
      const timeline = this.#state.timelines[channelId];
      // Its event may have come before the acknowledgement. A channel that is not open gets none.
      if (!timeline || timeline.messages.some((message) => message.messageId === messageId)) {
        this.discard(channelId, nonce);
      } else {
        this.#change(channelId, nonce, { state: "sent", messageId });
      }
    } catch (thrown) {
      this.#change(channelId, nonce, { state: "failed", error: errorOf(thrown) });
    }
  }

  #change(channelId: string, nonce: string, change: Partial<Pending>): void {
    this.#pending(channelId, (all) =>
      all.map((pending) => (pending.nonce === nonce ? { ...pending, ...change } : pending)),
    );
  }

  #pending(channelId: string, update: (all: Pending[]) => Pending[]): void {
    if (this.#state.phase !== "signedIn") return;
    const all = update(this.#state.pending[channelId] ?? []);
    this.#set({ pending: { ...this.#state.pending, [channelId]: all } });
  }

  // Read markers.

  /** Everything in the channel was seen. */
  markRead(channelId: string): void {
    const latest = this.#state.latest[channelId];
    if (!latest || !isNewer(latest, this.#state.read[channelId])) return;
    this.#set({ read: { ...this.#state.read, [channelId]: latest } });
    this.#keepReadMarkers();
  }

  /** Another tab of this user has read something. */
  readonly storageChanged = ({ key }: Pick<StorageEvent, "key">): void => {
    const userId = this.#state.user?.userId;
    if (userId && key === readKey(userId)) {
      const read = { ...this.#state.read };
      for (const [channelId, messageId] of Object.entries(this.#readMarkers(userId))) {
        if (messageId && isNewer(messageId, read[channelId])) read[channelId] = messageId;
      }
      this.#set({ read });
    }
  };

  #readMarkers(userId: string): Record<string, string> {
    try {
      const kept: unknown = JSON.parse(this.storage.getItem(readKey(userId)) ?? "{}");
      const entries = kept && typeof kept === "object" ? Object.entries(kept) : [];
      return Object.fromEntries(entries.filter(([, id]) => typeof id === "string"));
    } catch {
      return {}; // no storage, or somebody else wrote there
    }
  }

  #keepReadMarkers(): void {
    const { user, read } = this.#state;
    if (!user) return;
    try {
      this.storage.setItem(readKey(user.userId), JSON.stringify(read));
    } catch {
      // Full or forbidden: the markers last as long as the page.
    }
  }
}

function readKey(userId: string): string {
  return `jiscord.read.${userId}`;
}

/** Whether a channel has something that was not read. */
export function isUnread(state: State, channelId: string): boolean {
  const latest = state.latest[channelId];
  return latest !== undefined && state.read[channelId] !== undefined && isNewer(latest, state.read[channelId]);
}

/** Whether one of a guild's channels has something that was not read. */
export function isGuildUnread(state: State, guildId: string): boolean {
  return state.channels[guildId]?.some(({ channelId }) => isUnread(state, channelId)) ?? false;
}
