/** The Rust SDK, compiled to WebAssembly: everything the page says to a server goes through it. */

import type { Channel, Guild, GuildPage, MessageAck, SdkError, Timeline, User } from "./types";

export type * from "./types";

/** What the page asks of the SDK. The generated class has it; tests put a fake in its place. */
export interface Sdk {
  register(username: string, email: string, password: string): Promise<void>;
  login(email: string, password: string): Promise<User>;
  /** By the refresh cookie; null where there is none or it is refused. */
  refresh(): Promise<User | null>;
  logout(): Promise<void>;
  user(): User | null;
  guilds(): Guild[];
  channels(guildId: string): Channel[];
  timeline(channelId: string): Timeline;
  open(channelId: string): Promise<void>;
  close(channelId: string): void;
  loadOlder(channelId: string): Promise<void>;
  send(channelId: string, content: string, nonce: string, replyTo?: string): Promise<MessageAck>;
  typing(channelId: string): void;
  discover(cursor?: string): Promise<GuildPage>;
  createGuild(name: string): Promise<Guild>;
  join(guildId: string): Promise<void>;
  leave(guildId: string): Promise<void>;
  createChannel(guildId: string, name: string): Promise<Channel>;
  username(userId: string): Promise<string>;
  free(): void;
}

/** What a rejected promise of the SDK says. Whatever else is thrown is a defect, and told as one. */
export function errorOf(thrown: unknown): SdkError {
  if (thrown instanceof Error && "code" in thrown && typeof thrown.code === "string") {
    return thrown as Error & SdkError;
  }
  return { code: "internal", message: "Something went wrong on this page." };
}

/** What an error says to people. */
export function sentence({ code, message }: SdkError): string {
  switch (code) {
    case "unreachable":
    case "timeout":
    case "closed":
      return "The server cannot be reached.";
    case "rate_limited":
      return "That was too fast. Wait a moment, then try again.";
    case "outcome_unknown":
      return "The server did not say whether it has it. Trying again is safe.";
    default: {
      const text = message.charAt(0).toUpperCase() + message.slice(1);
      return /[.!?]$/.test(text) ? text : `${text}.`;
    }
  }
}
