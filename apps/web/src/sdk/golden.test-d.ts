// Written by `JISCORD_WRITE_TYPES=1 cargo test -p jiscord-web`, from the golden files.
import type * as T from "./types";

// frames/channel_create
({"op":"CHANNEL_CREATE","d":{"channelId":"a1897dc0-e748-11f1-8000-010000000000","guildId":"a13d3280-e748-11f1-8000-010000000000","name":"general","createdAt":"2026-11-23T14:17:35.900Z","rev":1795443455900000},"p":1795443456400123}) satisfies T.Placed;

// frames/channel_delete
({"op":"CHANNEL_DELETE","d":{"channelId":"a1897dc0-e748-11f1-8000-010000000000","guildId":"a13d3280-e748-11f1-8000-010000000000","rev":1795443456400000},"p":1795443456400123}) satisfies T.Placed;

// frames/error
({"op":"ERROR","d":{"code":"malformed","message":"not a frame"}}) satisfies T.Placed;

// frames/error_command
({"op":"ERROR","d":{"code":"rate_limited","message":"too many commands","op":"SEND_MESSAGE","nonce":"n-1","retryAfter":250}}) satisfies T.Placed;

// frames/guild_create
({"op":"GUILD_CREATE","d":{"guildId":"a13d3280-e748-11f1-8000-010000000000","name":"Analytical Engines","createdAt":"2026-11-23T14:17:35.400Z","rev":1795443455400000,"ownerId":"a00c0580-e748-11f1-8000-010000000000","visibility":"public","channels":[{"channelId":"a1897dc0-e748-11f1-8000-010000000000","guildId":"a13d3280-e748-11f1-8000-010000000000","name":"general","createdAt":"2026-11-23T14:17:35.900Z","rev":1795443455900000,"lastMessageId":"a1d5c900-e748-11f1-8000-010000000000"}]},"p":1795443456400123}) satisfies T.Placed;

// frames/guild_create_plain
({"op":"GUILD_CREATE","d":{"guildId":"a13d3280-e748-11f1-8000-010000000000","name":"Analytical Engines","createdAt":"2026-11-23T14:17:35.400Z","rev":1795443455400000,"channels":[]},"p":1795443456400123}) satisfies T.Placed;

// frames/guild_delete
({"op":"GUILD_DELETE","d":{"guildId":"a13d3280-e748-11f1-8000-010000000000","rev":1795443456400000},"p":1795443456400123}) satisfies T.Placed;

// frames/heartbeat
({"op":"HEARTBEAT","d":null}) satisfies T.ClientFrame;

// frames/heartbeat_ack
({"op":"HEARTBEAT_ACK","d":null}) satisfies T.Placed;

// frames/heartbeat_ack_p
({"op":"HEARTBEAT_ACK","d":null,"p":1795443456400123}) satisfies T.Placed;

// frames/hello
({"op":"HELLO","d":{"heartbeat_interval":45000}}) satisfies T.Placed;

// frames/identify
({"op":"IDENTIFY","d":{"token":"header.payload.signature"}}) satisfies T.ClientFrame;

// frames/identify_attempt
({"op":"IDENTIFY","d":{"token":"header.payload.signature","attempt":{"client":2718281828,"number":3}}}) satisfies T.ClientFrame;

// frames/identify_device_intents
({"op":"IDENTIFY","d":{"token":"header.payload.signature","device":"phone","intents":["guilds","members","messages","reactions","typing","presence","direct_messages"]}}) satisfies T.ClientFrame;

// frames/invalid_session
({"op":"INVALID_SESSION","d":null}) satisfies T.Placed;

// frames/member_add
({"op":"MEMBER_ADD","d":{"guildId":"a13d3280-e748-11f1-8000-010000000000","userId":"a0a49c00-e748-11f1-8000-010000000000","username":"Bob","joinedAt":"2026-11-23T14:17:36.400Z","rev":1795443456400000},"p":1795443456400123}) satisfies T.Placed;

// frames/member_remove
({"op":"MEMBER_REMOVE","d":{"guildId":"a13d3280-e748-11f1-8000-010000000000","userId":"a0a49c00-e748-11f1-8000-010000000000","rev":1795443456400000},"p":1795443456400123}) satisfies T.Placed;

// frames/message_ack
({"op":"MESSAGE_ACK","d":{"nonce":"n-1","messageId":"a1d5c900-e748-11f1-8000-010000000000","channelId":"a1897dc0-e748-11f1-8000-010000000000"}}) satisfies T.Placed;

// frames/message_create
({"op":"MESSAGE_CREATE","d":{"messageId":"a1d5c900-e748-11f1-8000-010000000000","channelId":"a1897dc0-e748-11f1-8000-010000000000","authorId":"a00c0580-e748-11f1-8000-010000000000","content":"Hello, \"world\" 🦀","createdAt":"2026-11-23T14:17:36.400Z","author":{"userId":"a00c0580-e748-11f1-8000-010000000000","username":"Ada"},"rev":1795443456400000,"nonce":"n-1","replyTo":"a1d5a1f4-e748-11f1-8000-010000000000"},"p":1795443456400123}) satisfies T.Placed;

// frames/message_create_plain
({"op":"MESSAGE_CREATE","d":{"messageId":"a1d5c900-e748-11f1-8000-010000000000","channelId":"a1897dc0-e748-11f1-8000-010000000000","authorId":"a00c0580-e748-11f1-8000-010000000000","content":"Hello, \"world\" 🦀","createdAt":"2026-11-23T14:17:36.400Z","rev":1795443456400000}}) satisfies T.Placed;

// frames/ready
({"op":"READY","d":{"userId":"a00c0580-e748-11f1-8000-010000000000","sessionId":"0f8fad5b-d9cb-469f-a165-70867728950e","user":{"userId":"a00c0580-e748-11f1-8000-010000000000","username":"Ada","email":"ada@example.com"},"guilds":[{"guildId":"a13d3280-e748-11f1-8000-010000000000","name":"Analytical Engines","createdAt":"2026-11-23T14:17:35.400Z","rev":1795443455400000}],"protocol":1,"epoch":"9b2c1f04"},"p":1795443456400123}) satisfies T.Placed;

// frames/reconnect
({"op":"RECONNECT","d":{"retryAfter":1500}}) satisfies T.Placed;

// frames/resume
({"op":"RESUME","d":{"token":"header.payload.signature","sessionId":"0f8fad5b-d9cb-469f-a165-70867728950e","epoch":"9b2c1f04","after":1795443456400123}}) satisfies T.ClientFrame;

// frames/resume_attempt
({"op":"RESUME","d":{"token":"header.payload.signature","sessionId":"0f8fad5b-d9cb-469f-a165-70867728950e","attempt":{"client":2718281828,"number":3},"epoch":"9b2c1f04","after":1795443456400123}}) satisfies T.ClientFrame;

// frames/resume_device_intents
({"op":"RESUME","d":{"token":"header.payload.signature","sessionId":"0f8fad5b-d9cb-469f-a165-70867728950e","device":"phone","intents":["messages"],"epoch":"9b2c1f04","after":1795443456400123}}) satisfies T.ClientFrame;

// frames/resumed
({"op":"RESUMED","d":{"replayed":3},"p":1795443456400123}) satisfies T.Placed;

// frames/resync
({"op":"RESYNC","d":{"topics":["guild:a13d3280-e748-11f1-8000-010000000000","user:a00c0580-e748-11f1-8000-010000000000"],"epoch":"9b2c1f04"},"p":1795443456400123}) satisfies T.Placed;

// frames/resync_all
({"op":"RESYNC","d":{"topics":null,"epoch":"9b2c1f04","spread":10000},"p":1795443456400123}) satisfies T.Placed;

// frames/send_message
({"op":"SEND_MESSAGE","d":{"channelId":"a1897dc0-e748-11f1-8000-010000000000","content":"Hello"}}) satisfies T.ClientFrame;

// frames/send_message_nonce_reply
({"op":"SEND_MESSAGE","d":{"channelId":"a1897dc0-e748-11f1-8000-010000000000","content":"Hello","nonce":"n-1","replyTo":"a1d5a1f4-e748-11f1-8000-010000000000"}}) satisfies T.ClientFrame;

// frames/typing
({"op":"TYPING","d":{"channelId":"a1897dc0-e748-11f1-8000-010000000000","userId":"a00c0580-e748-11f1-8000-010000000000","timestamp":1795443456400}}) satisfies T.Placed;

// frames/typing_start
({"op":"TYPING_START","d":{"channelId":"a1897dc0-e748-11f1-8000-010000000000"}}) satisfies T.ClientFrame;

// bodies/channel
({"channel_id":"a1897dc0-e748-11f1-8000-010000000000","guild_id":"a13d3280-e748-11f1-8000-010000000000","name":"general","created_at":"2026-11-23T14:17:35.900Z","rev":1795443455900000,"last_message_id":"a1d5c900-e748-11f1-8000-010000000000"}) satisfies T.ChannelRow;

// bodies/channel_plain
({"channel_id":"a1897dc0-e748-11f1-8000-010000000000","guild_id":"a13d3280-e748-11f1-8000-010000000000","name":"general","created_at":"2026-11-23T14:17:35.900Z","rev":1795443455900000}) satisfies T.ChannelRow;

// bodies/channels
([{"channel_id":"a1897dc0-e748-11f1-8000-010000000000","guild_id":"a13d3280-e748-11f1-8000-010000000000","name":"general","created_at":"2026-11-23T14:17:35.900Z","rev":1795443455900000}]) satisfies T.ChannelRow[];

// bodies/create_channel
({"name":"general"}) satisfies T.CreateChannelBody;

// bodies/create_guild
({"name":"Analytical Engines","creator_user_id":"a00c0580-e748-11f1-8000-010000000000","visibility":"private"}) satisfies T.CreateGuildBody;

// bodies/create_guild_plain
({"name":"Analytical Engines"}) satisfies T.CreateGuildBody;

// bodies/create_message
({"content":"Hello","author_id":"a00c0580-e748-11f1-8000-010000000000","nonce":"n-1","reply_to":"a1d5a1f4-e748-11f1-8000-010000000000"}) satisfies T.CreateMessageBody;

// bodies/create_message_plain
({"content":"Hello"}) satisfies T.CreateMessageBody;

// bodies/error
({"error":"Email already in use","code":"email_in_use"}) satisfies T.ErrorBody;

// bodies/guild
({"guild_id":"a13d3280-e748-11f1-8000-010000000000","name":"Analytical Engines","created_at":"2026-11-23T14:17:35.400Z","rev":1795443455400000,"owner_id":"a00c0580-e748-11f1-8000-010000000000","visibility":"public"}) satisfies T.GuildRow;

// bodies/guild_plain
({"guild_id":"a13d3280-e748-11f1-8000-010000000000","name":"Analytical Engines","created_at":"2026-11-23T14:17:35.400Z","rev":1795443455400000}) satisfies T.GuildRow;

// bodies/guild_private
({"guild_id":"a13d3280-e748-11f1-8000-010000000000","name":"Analytical Engines","created_at":"2026-11-23T14:17:35.400Z","rev":1795443455400000,"owner_id":"a00c0580-e748-11f1-8000-010000000000","visibility":"private"}) satisfies T.GuildRow;

// bodies/guilds
([{"guild_id":"a13d3280-e748-11f1-8000-010000000000","name":"Analytical Engines","created_at":"2026-11-23T14:17:35.400Z","rev":1795443455400000}]) satisfies T.GuildRow[];

// bodies/join
({"user_id":"a0a49c00-e748-11f1-8000-010000000000"}) satisfies T.JoinBody;

// bodies/join_self
({}) satisfies T.JoinBody;

// bodies/logged_in
({"token":"header.payload.signature","user":{"user_id":"a00c0580-e748-11f1-8000-010000000000","username":"Ada","email":"ada@example.com"}}) satisfies T.LoggedIn;

// bodies/login
({"email":"ada@example.com","password":"a long password"}) satisfies T.LoginBody;

// bodies/member
({"guild_id":"a13d3280-e748-11f1-8000-010000000000","user_id":"a0a49c00-e748-11f1-8000-010000000000","username":"Bob","joined_at":"2026-11-23T14:17:36.400Z","rev":1795443456400000}) satisfies T.MemberRow;

// bodies/member_plain
({"guild_id":"a13d3280-e748-11f1-8000-010000000000","user_id":"a0a49c00-e748-11f1-8000-010000000000","joined_at":"2026-11-23T14:17:36.400Z","rev":1795443456400000}) satisfies T.MemberRow;

// bodies/message
({"message_id":"a1d5c900-e748-11f1-8000-010000000000","channel_id":"a1897dc0-e748-11f1-8000-010000000000","author_id":"a00c0580-e748-11f1-8000-010000000000","content":"Hello, \"world\" 🦀","created_at":"2026-11-23T14:17:36.400Z","rev":1795443456400000,"author":{"user_id":"a00c0580-e748-11f1-8000-010000000000","username":"Ada"},"nonce":"n-1","reply_to":"a1d5a1f4-e748-11f1-8000-010000000000"}) satisfies T.MessageRow;

// bodies/message_page
({"messages":[{"message_id":"a1d5c900-e748-11f1-8000-010000000000","channel_id":"a1897dc0-e748-11f1-8000-010000000000","author_id":"a00c0580-e748-11f1-8000-010000000000","content":"Hello, \"world\" 🦀","created_at":"2026-11-23T14:17:36.400Z","rev":1795443456400000}],"nextPageState":"1.opaque"}) satisfies T.MessagePage;

// bodies/message_page_last
({"messages":[],"nextPageState":null}) satisfies T.MessagePage;

// bodies/message_plain
({"message_id":"a1d5c900-e748-11f1-8000-010000000000","channel_id":"a1897dc0-e748-11f1-8000-010000000000","author_id":"a00c0580-e748-11f1-8000-010000000000","content":"Hello, \"world\" 🦀","created_at":"2026-11-23T14:17:36.400Z","rev":1795443456400000}) satisfies T.MessageRow;

// bodies/register
({"username":"Ada","email":"ada@example.com","password":"a long password"}) satisfies T.RegisterBody;

// bodies/registered
({"user_id":"a00c0580-e748-11f1-8000-010000000000","username":"Ada"}) satisfies T.Registered;

// bodies/user
({"user_id":"a00c0580-e748-11f1-8000-010000000000","username":"Ada","email":"ada@example.com","created_at":"2026-11-23T14:17:33.400Z"}) satisfies T.UserRow;

// bodies/user_public
({"user_id":"a00c0580-e748-11f1-8000-010000000000","username":"Ada","created_at":"2026-11-23T14:17:33.400Z"}) satisfies T.UserRow;
