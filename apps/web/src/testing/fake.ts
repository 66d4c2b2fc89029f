import type { Change, Channel, Guild, GuildPage, Message, MessageAck, Sdk, Timeline, User } from "../sdk";

/** An error as the SDK rejects with. */
export function sdkError(code: string, message: string = code): Error {
  return Object.assign(new Error(message), { code });
}

const at = (n: number) => new Date(Date.UTC(2026, 10, 24, 12, 0, n)).toISOString();

/** The id of the nth message: a version 1 UUID, as the server makes them. */
export function messageId(n: number): string {
  return `${n.toString(16).padStart(8, "0")}-0000-11f0-8000-010000000000`;
}

/** A server's answers, for tests: what a test puts in comes out, and `say` tells of changes. */
export class FakeSdk implements Sdk {
  me: User | null = null;
  session: User | null = null;
  /** What the next refreshes throw. */
  refreshErrors: Error[] = [];
  allGuilds: Guild[] = [];
  allChannels: Record<string, Channel[]> = {};
  timelines: Record<string, Timeline> = {};
  sends: {
    channelId: string;
    content: string;
    nonce: string;
    done: (ack: MessageAck) => void;
    fail: (error: Error) => void;
  }[] = [];
  typed: string[] = [];
  asked: string[] = [];
  closed: string[] = [];

  constructor(public say: (change: Change) => void = () => {}) {}

  guild(guildId: string, name: string, ...channels: string[]): void {
    this.allGuilds.push({ guildId, name, createdAt: at(0), rev: 1 });
    this.allChannels[guildId] = channels.map((name) => ({ channelId: name, guildId, name, createdAt: at(0), rev: 1 }));
  }

  message(channelId: string, n: number, authorId: string, content: string, more: Partial<Message> = {}): Message {
    const author = { userId: authorId, username: authorId };
    return { messageId: messageId(n), channelId, authorId, content, createdAt: at(n), author, rev: n, ...more };
  }

  /** Puts messages at the end of a channel, as its events would. */
  arrive(...messages: Message[]): void {
    for (const message of messages) {
      const { channelId, messageId, authorId } = message;
      const timeline = this.timeline(channelId);
      timeline.messages.push(message);
      this.timelines[channelId] = timeline;
      const splices = [{ at: timeline.messages.length - 1, remove: 0, insert: [message] }];
      this.say({ kind: "messages", channelId, splices, hasOlder: timeline.hasOlder });
      this.say({ kind: "activity", channelId, messageId, authorId });
    }
  }

  async register(): Promise<void> {}
  async login(email: string): Promise<User> {
    this.me = this.session ?? { userId: "ada", username: "ada", email };
    return this.me;
  }
  async refresh(): Promise<User | null> {
    const error = this.refreshErrors.shift();
    if (error) throw error;
    this.me = this.session;
    return this.session;
  }
  async logout(): Promise<void> {
    this.me = null;
  }
  user(): User | null {
    return this.me;
  }
  guilds(): Guild[] {
    return [...this.allGuilds];
  }
  channels(guildId: string): Channel[] {
    return [...(this.allChannels[guildId] ?? [])];
  }
  timeline(channelId: string): Timeline {
    const { messages, hasOlder, loaded } = this.timelines[channelId] ?? { messages: [], hasOlder: false, loaded: true };
    return { messages: [...messages], hasOlder, loaded };
  }
  async open(): Promise<void> {}
  close(channelId: string): void {
    this.closed.push(channelId);
  }
  async loadOlder(): Promise<void> {}
  send(channelId: string, content: string, nonce: string): Promise<MessageAck> {
    return new Promise((done, fail) => this.sends.push({ channelId, content, nonce, done, fail }));
  }
  typing(channelId: string): void {
    this.typed.push(channelId);
  }
  async discover(): Promise<GuildPage> {
    return { items: this.guilds() };
  }
  async createGuild(name: string): Promise<Guild> {
    this.guild(name, name);
    this.say({ kind: "guilds" });
    return { guildId: name, name, createdAt: at(0), rev: 1 };
  }
  async join(): Promise<void> {}
  async leave(): Promise<void> {}
  async createChannel(guildId: string, name: string): Promise<Channel> {
    return { channelId: name, guildId, name, createdAt: at(0), rev: 1 };
  }
  async username(userId: string): Promise<string> {
    this.asked.push(userId);
    return userId;
  }
  free(): void {}
}
