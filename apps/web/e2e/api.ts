import { randomUUID } from "node:crypto";
import { SERVICE_TOKEN } from "./server";

/** A user that tests made. */
export interface Account {
  userId: string;
  username: string;
  email: string;
  password: string;
}

/** The server's HTTP API, for what a test needs to be there before it begins. */
export class Api {
  constructor(private readonly url: string) {}

  async call<T>(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<T> {
    const answer = await fetch(`${this.url}/api${path}`, {
      method,
      headers: { "Content-Type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    return (answer.status === 204 ? undefined : await answer.json()) as T;
  }

  /** An account of its own for each test: an address is taken once. */
  async account(username: string): Promise<Account> {
    const name = username.toLowerCase().replaceAll(/[^a-z]+/g, ".");
    const email = `${name}-${randomUUID().slice(0, 8)}@example.org`;
    const password = `password of ${username}`;
    const { user_id } = await this.call<{ user_id: string }>("POST", "/auth/register", { username, email, password });
    return { userId: user_id, username, email, password };
  }

  /** Acts as a user, by its own token. */
  async as(account: Account): Promise<Actor> {
    const { email, password } = account;
    const { token } = await this.call<{ token: string }>("POST", "/auth/login", { email, password });
    return new Actor(this, { Authorization: `Bearer ${token}` });
  }

  /** Acts as a user without its password. Only against the all-in-one, whose service token tests know. */
  behalf(userId: string): Actor {
    return new Actor(this, { Authorization: `Service ${SERVICE_TOKEN}`, "X-User-ID": userId });
  }

  /** A user that never logs in. Only against the all-in-one. */
  async user(username: string): Promise<string> {
    const body = { username, email: `${randomUUID()}@example.org`, password_hash: "$none$" };
    const headers = { Authorization: `Service ${SERVICE_TOKEN}` };
    return (await this.call<{ user_id: string }>("POST", "/data/users", body, headers)).user_id;
  }
}

/** A user's calls. */
export class Actor {
  constructor(
    private readonly api: Api,
    private readonly headers: Record<string, string>,
  ) {}

  async guild(name: string): Promise<string> {
    return (await this.#post<{ guild_id: string }>("/guilds", { name })).guild_id;
  }
  async channel(guildId: string, name: string): Promise<string> {
    return (await this.#post<{ channel_id: string }>(`/guilds/${guildId}/channels`, { name })).channel_id;
  }
  async join(guildId: string): Promise<void> {
    await this.#post(`/guilds/${guildId}/members`, {});
  }
  async say(channelId: string, content: string): Promise<string> {
    return (await this.#post<{ message_id: string }>(`/channels/${channelId}/messages`, { content })).message_id;
  }
  #post<T>(path: string, body: unknown): Promise<T> {
    return this.api.call<T>("POST", `/data${path}`, body, this.headers);
  }
}
