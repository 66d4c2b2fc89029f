// Written by `JISCORD_WRITE_TYPES=1 cargo test -p jiscord-web`.

/**
 * Tells the attempts of one client to have a session apart: of two, the one with the larger number is the later, whatever order
 * they arrive in. So an attempt that was given up, and still reaches a gateway, takes nothing from the one that followed it.
 */
export type Attempt = { 
/**
 * Chosen at random by each run of a program. Attempts of two clients have no order of their own.
 */
client: number, 
/**
 * Larger each time.
 */
number: number, };

/**
 * Who wrote a message.
 */
export type Author = { 
/**
 * Its id.
 */
userId: UserId, 
/**
 * What it was called when the message was read or sent.
 */
username: string, };

/**
 * A message's author.
 */
export type AuthorRow = { 
/**
 *As in [`Author`].
 */
user_id: UserId, 
/**
 *As in [`Author`].
 */
username: string, };

/**
 * Something that the snapshots show has changed, or happened.
 */
export type Change = { "kind": "connection", state: ConnectionState, 
/**
 * While it waits: how long.
 */
retryInMs?: number, 
/**
 * Once it has ended: why.
 */
reason?: EndReason, } | { "kind": "guilds" } | { "kind": "channels", guildId: GuildId, } | { "kind": "messages", channelId: ChannelId, splices: Array<Splice>, hasOlder: boolean, } | { "kind": "activity", channelId: ChannelId, messageId: MessageId, authorId: UserId, } | { "kind": "typing", channelId: ChannelId, userId: UserId, 
/**
 * In Unix milliseconds.
 */
timestamp: number, } | { "kind": "failed", error: SdkError, };

/**
 * A channel of a guild.
 */
export type Channel = { 
/**
 * Its id.
 */
channelId: ChannelId, 
/**
 * Whose it is.
 */
guildId: GuildId, 
/**
 * What it is called.
 */
name: string, 
/**
 * When it was created.
 */
createdAt: Timestamp, 
/**
 * How new this version is.
 */
rev: number, 
/**
 * The newest message in it when this was read; not kept up by events.
 */
lastMessageId?: MessageId, };

/**
 * A channel is gone, or out of sight.
 */
export type ChannelDelete = { 
/**
 * The channel.
 */
channelId: ChannelId, 
/**
 * Its guild.
 */
guildId: GuildId, 
/**
 * How new this is.
 */
rev: number, };

/**
 * A place in a guild where messages are.
 */
export type ChannelId = string;

/**
 * A channel.
 */
export type ChannelRow = { 
/**
 *As in [`Channel`].
 */
channel_id: ChannelId, 
/**
 *As in [`Channel`].
 */
guild_id: GuildId, 
/**
 *As in [`Channel`].
 */
name: string, 
/**
 *As in [`Channel`].
 */
created_at: Timestamp, 
/**
 *As in [`Channel`].
 */
rev: number, 
/**
 *As in [`Channel`].
 */
last_message_id?: MessageId, };

/**
 * What a client says.
 */
export type ClientFrame = { "op": "HEARTBEAT", "d": null } | { "op": "IDENTIFY", "d": Identify } | { "op": "RESUME", "d": Resume } | { "op": "SEND_MESSAGE", "d": SendMessage } | { "op": "TYPING_START", "d": TypingStart };

/** What went wrong, as a word that programs match on. Newer servers may have more of them. */
export type Code = "malformed" | "unauthorized" | "forbidden" | "not_found" | "method_not_allowed" | "timeout" | "conflict" | "email_in_use" | "nonce_reused" | "too_large" | "unsupported_media_type" | "invalid" | "rate_limited" | "internal" | "unsupported" | "busy" | "unavailable" | "outcome_unknown" | "storage_full" | "unknown_op" | (string & {});

/**
 * How a session is.
 */
export type ConnectionState = "connecting" | "ready" | "waiting" | "ended";

/**
 * `POST /guilds/:guildId/channels`.
 */
export type CreateChannelBody = { 
/**
 * 2 to 100 characters.
 */
name: string, };

/**
 * `POST /guilds`.
 */
export type CreateGuildBody = { 
/**
 * 2 to 100 characters.
 */
name: string, 
/**
 * From a service: the user it acts for.
 */
creator_user_id?: UserId, 
/**
 * Who may join; absent: as the server is configured.
 */
visibility?: Visibility, };

/**
 * `POST /channels/:channelId/messages`.
 */
export type CreateMessageBody = { 
/**
 * 1 to 4,000 characters.
 */
content: string, 
/**
 * Who writes it; a user's own id, or from a service the user it acts for.
 */
author_id?: UserId, 
/**
 * The same (author, channel, nonce) within a day is the same message.
 */
nonce?: string, 
/**
 * A message of the same channel.
 */
reply_to?: MessageId, };

/**
 * Why a session is over.
 */
export type EndReason = "unauthorized" | "evicted" | "closed";

/**
 * The body of every HTTP answer that is no success.
 */
export type ErrorBody = { 
/**
 * A sentence for people.
 */
error: string, 
/**
 * A word for programs.
 */
code: Code, };

/**
 * A command failed.
 */
export type ErrorFrame = { 
/**
 * A word for programs.
 */
code: Code, 
/**
 * A sentence for people.
 */
message: string, 
/**
 * The command's op, if it had one.
 */
op?: string, 
/**
 * The command's nonce, if it had one.
 */
nonce?: string, 
/**
 * Milliseconds after which asking again makes sense.
 */
retryAfter?: number, };

/**
 * A guild.
 */
export type Guild = { 
/**
 * Its id.
 */
guildId: GuildId, 
/**
 * What it is called.
 */
name: string, 
/**
 * When it was created.
 */
createdAt: Timestamp, 
/**
 * How new this version is.
 */
rev: number, 
/**
 * Who may do everything in it.
 */
ownerId?: UserId, 
/**
 * Who may join. Absent where it is not known.
 */
visibility?: Visibility, };

/**
 * The user is in this guild now.
 */
export type GuildCreate = { 
/**
 * The channels that the user may see.
 */
channels: Array<Channel>, 
/**
 * Its id.
 */
guildId: GuildId, 
/**
 * What it is called.
 */
name: string, 
/**
 * When it was created.
 */
createdAt: Timestamp, 
/**
 * How new this version is.
 */
rev: number, 
/**
 * Who may do everything in it.
 */
ownerId?: UserId, 
/**
 * Who may join. Absent where it is not known.
 */
visibility?: Visibility, };

/**
 * The user is no longer in this guild.
 */
export type GuildDelete = { 
/**
 * The guild.
 */
guildId: GuildId, 
/**
 * How new this is.
 */
rev: number, };

/**
 * A community with members and channels.
 */
export type GuildId = string;

/**
 * Some guilds that anybody may join.
 */
export type GuildPage = { items: Array<Guild>, 
/**
 * How to read on, unless these are the last.
 */
next?: string, };

/**
 * A guild.
 */
export type GuildRow = { 
/**
 *As in [`Guild`].
 */
guild_id: GuildId, 
/**
 *As in [`Guild`].
 */
name: string, 
/**
 *As in [`Guild`].
 */
created_at: Timestamp, 
/**
 *As in [`Guild`].
 */
rev: number, 
/**
 *As in [`Guild`].
 */
owner_id?: UserId, 
/**
 *As in [`Guild`].
 */
visibility?: Visibility, };

/**
 * How the connection is kept.
 */
export type Hello = { 
/**
 * Send HEARTBEAT this often, in milliseconds. A session silent for 1.5 times as long is closed.
 */
heartbeat_interval: number, };

/**
 * Who is there.
 */
export type Identify = { 
/**
 * The JWT of a login.
 */
token: string, 
/**
 * Which of the user's devices; absent: the one nameless device. Of two sessions of one device the later lives.
 */
device?: string, 
/**
 * What to be told; absent: everything.
 */
intents?: string[], 
/**
 * Which attempt of its client this is; absent: whatever arrives later counts as later.
 */
attempt?: Attempt, };

/**
 * `POST /guilds/:guildId/members`. The body may be left out: the caller joins.
 */
export type JoinBody = { 
/**
 * The caller, or from a service the user it acts for.
 */
user_id?: UserId, };

/**
 * The answer of `POST /login`.
 */
export type LoggedIn = { 
/**
 * A JWT, good for seven days. A secret.
 */
token: string, 
/**
 * Whose it is.
 */
user: UserRow, };

/**
 * `POST /login` of auth-service.
 */
export type LoginBody = { 
/**
 * The address the user registered with.
 */
email: string, 
/**
 * The password.
 */
password: string, };

/**
 * That a user is in a guild.
 */
export type Member = { 
/**
 * The guild.
 */
guildId: GuildId, 
/**
 * The user.
 */
userId: UserId, 
/**
 * Its name. Absent where it is not known.
 */
username?: string, 
/**
 * Since when.
 */
joinedAt: Timestamp, 
/**
 * How new this is.
 */
rev: number, };

/**
 * Somebody is no longer in a guild.
 */
export type MemberRemove = { 
/**
 * The guild.
 */
guildId: GuildId, 
/**
 * Who.
 */
userId: UserId, 
/**
 * How new this is.
 */
rev: number, };

/**
 * A membership. The answer of `POST /guilds/…/members`.
 */
export type MemberRow = { 
/**
 *As in [`Member`].
 */
guild_id: GuildId, 
/**
 *As in [`Member`].
 */
user_id: UserId, 
/**
 *As in [`Member`].
 */
username?: string, 
/**
 *As in [`Member`].
 */
joined_at: Timestamp, 
/**
 *As in [`Member`].
 */
rev: number, };

/**
 * A message in a channel.
 */
export type Message = { 
/**
 * Its id; a channel's messages are ordered by it ([`MessageId::sort_key`]).
 */
messageId: MessageId, 
/**
 * Where it is.
 */
channelId: ChannelId, 
/**
 * Who wrote it.
 */
authorId: UserId, 
/**
 * What it says.
 */
content: string, 
/**
 * When it was written.
 */
createdAt: Timestamp, 
/**
 * Its author's name. Absent where the name is not known.
 */
author?: Author, 
/**
 * How new this version is.
 */
rev: number, 
/**
 * The sender's nonce; only in the event that tells of its creation.
 */
nonce?: string, 
/**
 * The message in the same channel that it answers.
 */
replyTo?: MessageId, };

/**
 * A message is durable.
 */
export type MessageAck = { 
/**
 * The sender's nonce.
 */
nonce: string, 
/**
 * The message's id.
 */
messageId: MessageId, 
/**
 * Where it is.
 */
channelId: ChannelId, };

/**
 * A message. Always version 1, and ordered by [`MessageId::sort_key`], not by its bytes or text.
 */
export type MessageId = string;

/**
 * A page of `GET /channels/:channelId/messages`, newest first.
 */
export type MessagePage = { 
/**
 * The messages.
 */
messages: Array<MessageRow>, 
/**
 * Give it back as `pageState` to read on; null on the last page.
 */
nextPageState: string | null, };

/**
 * A message. The answer of `POST /channels/…/messages`, and what a page holds.
 */
export type MessageRow = { 
/**
 *As in [`Message`].
 */
message_id: MessageId, 
/**
 *As in [`Message`].
 */
channel_id: ChannelId, 
/**
 *As in [`Message`].
 */
author_id: UserId, 
/**
 *As in [`Message`].
 */
content: string, 
/**
 *As in [`Message`].
 */
created_at: Timestamp, 
/**
 *As in [`Message`].
 */
rev: number, 
/**
 *As in [`Message`].
 */
author?: AuthorRow, 
/**
 *As in [`Message`].
 */
nonce?: string, 
/**
 *As in [`Message`].
 */
reply_to?: MessageId, };

/**
 * A frame and, for a lasting event, its place in the log.
 */
export type Placed = { 
/**
 * Where it stands; with READY, RESUMED, RESYNC and HEARTBEAT_ACK: up to where everything was sent.
 */
p?: Position, } & ({ "op": "HELLO", "d": Hello } | { "op": "HEARTBEAT_ACK", "d": null } | { "op": "READY", "d": Ready } | { "op": "INVALID_SESSION", "d": null } | { "op": "RESUMED", "d": Resumed } | { "op": "RESYNC", "d": Resync } | { "op": "RECONNECT", "d": Reconnect } | { "op": "ERROR", "d": ErrorFrame } | { "op": "MESSAGE_ACK", "d": MessageAck } | { "op": "MESSAGE_CREATE", "d": Message } | { "op": "TYPING", "d": Typing } | { "op": "GUILD_CREATE", "d": GuildCreate } | { "op": "GUILD_DELETE", "d": GuildDelete } | { "op": "MEMBER_ADD", "d": Member } | { "op": "MEMBER_REMOVE", "d": MemberRemove } | { "op": "CHANNEL_CREATE", "d": Channel } | { "op": "CHANNEL_DELETE", "d": ChannelDelete });

/**
 * Where an event stands in the log: an integer below 2^53, larger than all before it in the same log over all topics.
 */
export type Position = number;

/**
 * The session is ready.
 */
export type Ready = { 
/**
 * Who the token says the client is.
 */
userId: UserId, 
/**
 * Names this session.
 */
sessionId: SessionId, 
/**
 * The user itself.
 */
user: User, 
/**
 * The guilds it is in, without their channels.
 */
guilds: Array<Guild>, 
/**
 * [`PROTOCOL`].
 */
protocol: number, 
/**
 * Names the log that positions belong to.
 */
epoch: string, };

/**
 * The server is going away.
 */
export type Reconnect = { 
/**
 * Milliseconds to wait before coming back.
 */
retryAfter: number, };

/**
 * `POST /register` of auth-service.
 */
export type RegisterBody = { 
/**
 * 2 to 32 characters.
 */
username: string, 
/**
 * Where to reach the user; one account an address.
 */
email: string, 
/**
 * 8 to 128 characters.
 */
password: string, };

/**
 * The answer of `POST /register`.
 */
export type Registered = { 
/**
 * The new user.
 */
user_id: UserId, 
/**
 * What it is called.
 */
username: string, };

/**
 * Where a session was when it was cut.
 */
export type Resume = { 
/**
 * The JWT of a login.
 */
token: string, 
/**
 * The session to go on with.
 */
sessionId: SessionId, 
/**
 * As in IDENTIFY.
 */
device?: string, 
/**
 * As in IDENTIFY.
 */
intents?: string[], 
/**
 * As in IDENTIFY.
 */
attempt?: Attempt, 
/**
 * The log that `after` belongs to.
 */
epoch: string, 
/**
 * The last position that was surely seen.
 */
after: Position, };

/**
 * The session goes on.
 */
export type Resumed = { 
/**
 * How many events were sent again.
 */
replayed: number, };

/**
 * What is kept of these topics may be stale in any way.
 */
export type Resync = { 
/**
 * The topics; null: all.
 */
topics: Array<Topic> | null, 
/**
 * The log as it is now.
 */
epoch: string, 
/**
 * So many others are told the same that each is to wait a random part of these milliseconds before it reads.
 */
spread?: number, };

/**
 * Why a call was not done. Every promise that is rejected is an `Error` that has this as well.
 */
export type SdkError = { 
/**
 * The server's word, or one of `unreachable`, `closed` and `protocol`.
 */
code: string, 
/**
 * A sentence for people.
 */
message: string, 
/**
 * When asking again makes sense.
 */
retryAfterMs?: number, };

/**
 * A message to write.
 */
export type SendMessage = { 
/**
 * Where.
 */
channelId: ChannelId, 
/**
 * 1 to 4,000 characters.
 */
content: string, 
/**
 * Asks for a MESSAGE_ACK, and makes sending again safe for a day.
 */
nonce?: string, 
/**
 * A message of the same channel.
 */
replyTo?: MessageId, };

/**
 * One connection's session at a gateway. Random.
 */
export type SessionId = string;

/**
 * `array.splice(at, remove, ...insert)`.
 */
export type Splice = { at: number, remove: number, insert: Array<Message>, };

/**
 * What is loaded of a channel.
 */
export type Timeline = { 
/**
 * Oldest first.
 */
messages: Array<Message>, 
/**
 * Whether there are older ones to load.
 */
hasOlder: boolean, 
/**
 * Whether the newest were loaded yet.
 */
loaded: boolean, };

/**
 * Milliseconds since the Unix epoch; on the wire ISO 8601 in UTC with milliseconds, `2026-11-25T02:15:00.000Z`.
 */
export type Timestamp = string;

/**
 * Who an event is for. Written `guild:<id>` or `user:<id>`; on Redis the channel of the same name.
 */
export type Topic = `guild:${string}` | `user:${string}`;

/**
 * Somebody types.
 */
export type Typing = { 
/**
 * Where.
 */
channelId: ChannelId, 
/**
 * Who; the typer is told too.
 */
userId: UserId, 
/**
 * When, in Unix milliseconds.
 */
timestamp: number, };

/**
 * Where the user types.
 */
export type TypingStart = { 
/**
 * The channel.
 */
channelId: ChannelId, };

/**
 * A user, as everybody may see it.
 */
export type User = { 
/**
 * Its id.
 */
userId: UserId, 
/**
 * What it is called. Not unique.
 */
username: string, 
/**
 * Only for the user itself and for services.
 */
email?: string, 
/**
 * When it registered.
 */
createdAt?: Timestamp, };

/**
 * A person or a bot.
 */
export type UserId = string;

/**
 * A user. The answer of `GET /users/…`, `GET /me` and others.
 */
export type UserRow = { 
/**
 *As in [`User`].
 */
user_id: UserId, 
/**
 *As in [`User`].
 */
username: string, 
/**
 *As in [`User`].
 */
email?: string, 
/**
 *As in [`User`].
 */
created_at?: Timestamp, };

/**
 * Who may find and join a guild.
 */
export type Visibility = "public" | "private";
