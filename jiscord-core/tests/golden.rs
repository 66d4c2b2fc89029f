//! The bytes on the wire are the contract: every frame and body is written as its golden file has it, and read back from it.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic like the test")]

use std::{collections::BTreeSet, path::PathBuf};

use jiscord_core::{
    ClientFrame, Code, Event, EventId, Placed, Position, ServerFrame, Timestamp, Topic,
    backend::{GuildState, Login, Membership, Sent},
    fault::ErrorBody,
    frame::*,
    http::*,
    model::{Author, Channel, Guild, Member, Message, User, Visibility},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

const ADA: &str = "a00c0580-e748-11f1-8000-010000000000";
const BOB: &str = "a0a49c00-e748-11f1-8000-010000000000";
const GUILD: &str = "a13d3280-e748-11f1-8000-010000000000";
const CHANNEL: &str = "a1897dc0-e748-11f1-8000-010000000000";
const EARLIER: &str = "a1d5a1f4-e748-11f1-8000-010000000000";
const MESSAGE: &str = "a1d5c900-e748-11f1-8000-010000000000";
const SESSION: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
const NOW_MS: i64 = 1_795_443_456_400;
const NOW: u64 = 1_795_443_456_400_000;
const P: Position = Position(1_795_443_456_400_123);
const TOKEN: &str = "header.payload.signature";
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA";
const LOGIN: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn ada() -> User {
    User { user_id: id(ADA), username: "Ada".into(), email: Some("ada@example.com".into()), created_at: None }
}

fn author() -> Author {
    Author { user_id: id(ADA), username: "Ada".into() }
}

fn message() -> Message {
    Message {
        message_id: id(MESSAGE),
        channel_id: id(CHANNEL),
        author_id: id(ADA),
        content: "Hello, \"world\" 🦀".into(),
        created_at: Timestamp::from_ms(NOW_MS),
        author: None,
        rev: NOW,
        nonce: None,
        reply_to: None,
    }
}

fn full_message() -> Message {
    Message { author: Some(author()), nonce: Some("n-1".into()), reply_to: Some(id(EARLIER)), ..message() }
}

fn guild() -> Guild {
    Guild {
        guild_id: id(GUILD),
        name: "Analytical Engines".into(),
        created_at: Timestamp::from_ms(NOW_MS - 1_000),
        rev: NOW - 1_000_000,
        owner_id: None,
        visibility: None,
    }
}

fn full_guild(visibility: Visibility) -> Guild {
    Guild { owner_id: Some(id(ADA)), visibility: Some(visibility), ..guild() }
}

fn channel() -> Channel {
    Channel {
        channel_id: id(CHANNEL),
        guild_id: id(GUILD),
        name: "general".into(),
        created_at: Timestamp::from_ms(NOW_MS - 500),
        rev: NOW - 500_000,
        last_message_id: None,
    }
}

fn full_channel() -> Channel {
    Channel { last_message_id: Some(id(MESSAGE)), ..channel() }
}

fn member() -> Member {
    Member { guild_id: id(GUILD), user_id: id(BOB), username: None, joined_at: Timestamp::from_ms(NOW_MS), rev: NOW }
}

fn full_member() -> Member {
    Member { username: Some("Bob".into()), ..member() }
}

/// A message with the event that tells of it.
fn sent(message: Message, repeated: bool) -> Sent {
    let frame = ServerFrame::MessageCreate(message.clone());
    let event = Event::new(id(MESSAGE), vec![Topic::Guild(id(GUILD))], Some(message.channel_id), frame);
    Sent::new(message, vec![event], repeated)
}

/// An event about no channel.
fn joined() -> Event {
    let topics = vec![Topic::Guild(id(GUILD)), Topic::User(id(BOB))];
    Event::new(EventId::new(id::<jiscord_core::MessageId>(EARLIER).uuid()), topics, None, ServerFrame::MemberAdd(member()))
}

fn client_frames() -> Vec<(&'static str, ClientFrame)> {
    let identify = Identify { token: TOKEN.into(), device: None, intents: None, attempt: None };
    let (token, epoch) = (TOKEN.to_owned(), "9b2c1f04".to_owned());
    let resume = Resume { token, session_id: id(SESSION), device: None, intents: None, attempt: None, epoch, after: P };
    let attempt = Some(Attempt { client: 2_718_281_828, number: 3 });
    let send = SendMessage { channel_id: id(CHANNEL), content: "Hello".into(), nonce: None, reply_to: None };
    let device = || Some("phone".to_owned());
    vec![
        ("heartbeat", ClientFrame::Heartbeat(())),
        ("identify", ClientFrame::Identify(identify.clone())),
        (
            "identify_device_intents",
            ClientFrame::Identify(Identify { device: device(), intents: Some(Intents::all()), ..identify.clone() }),
        ),
        ("identify_attempt", ClientFrame::Identify(Identify { attempt, ..identify })),
        ("resume", ClientFrame::Resume(resume.clone())),
        (
            "resume_device_intents",
            ClientFrame::Resume(Resume { device: device(), intents: Some(Intents::MESSAGES), ..resume.clone() }),
        ),
        ("resume_attempt", ClientFrame::Resume(Resume { attempt, ..resume })),
        ("send_message", ClientFrame::SendMessage(send.clone())),
        (
            "send_message_nonce_reply",
            ClientFrame::SendMessage(SendMessage { nonce: Some("n-1".into()), reply_to: Some(id(EARLIER)), ..send }),
        ),
        ("typing_start", ClientFrame::TypingStart(TypingStart { channel_id: id(CHANNEL) })),
    ]
}

fn server_frames() -> Vec<(&'static str, Placed)> {
    use ServerFrame::*;
    let ready = jiscord_core::frame::Ready {
        user_id: id(ADA),
        session_id: id(SESSION),
        user: ada(),
        guilds: vec![guild()],
        protocol: PROTOCOL,
        epoch: "9b2c1f04".into(),
    };
    let topics = vec![Topic::Guild(id(GUILD)), Topic::User(id(ADA))];
    let resync = |topics, spread| Resync(jiscord_core::frame::Resync { topics, epoch: "9b2c1f04".into(), spread });
    let error = ErrorFrame { code: Code::MALFORMED, message: "not a frame".into(), op: None, nonce: None, retry_after: None };
    let command = ErrorFrame {
        code: Code::RATE_LIMITED,
        message: "too many commands".into(),
        op: Some("SEND_MESSAGE".into()),
        nonce: Some("n-1".into()),
        retry_after: Some(250),
    };
    let ack = jiscord_core::frame::MessageAck { nonce: "n-1".into(), message_id: id(MESSAGE), channel_id: id(CHANNEL) };
    let typing = jiscord_core::frame::Typing { channel_id: id(CHANNEL), user_id: id(ADA), timestamp: NOW_MS };
    let guild_create = |guild, channels| GuildCreate(jiscord_core::frame::GuildCreate { guild, channels });
    let guild_delete = jiscord_core::frame::GuildDelete { guild_id: id(GUILD), rev: NOW };
    let member_remove = jiscord_core::frame::MemberRemove { guild_id: id(GUILD), user_id: id(BOB), rev: NOW };
    let channel_delete = jiscord_core::frame::ChannelDelete { channel_id: id(CHANNEL), guild_id: id(GUILD), rev: NOW };
    vec![
        ("hello", Hello(jiscord_core::frame::Hello { heartbeat_interval: 45_000 }).at(None)),
        ("heartbeat_ack", HeartbeatAck(()).at(None)),
        ("heartbeat_ack_p", HeartbeatAck(()).at(P)),
        ("ready", Ready(ready).at(P)),
        ("invalid_session", InvalidSession(()).at(None)),
        ("resumed", Resumed(jiscord_core::frame::Resumed { replayed: 3 }).at(P)),
        ("resync", resync(Some(topics), None).at(P)),
        ("resync_all", resync(None, Some(10_000)).at(P)),
        ("reconnect", Reconnect(jiscord_core::frame::Reconnect { retry_after: 1_500 }).at(None)),
        ("error", Error(error).at(None)),
        ("error_command", Error(command).at(None)),
        ("message_ack", MessageAck(ack).at(None)),
        ("message_create", MessageCreate(full_message()).at(P)),
        ("message_create_plain", MessageCreate(message()).at(None)),
        ("typing", Typing(typing).at(None)),
        ("guild_create", guild_create(full_guild(Visibility::Public), vec![full_channel()]).at(P)),
        ("guild_create_plain", guild_create(guild(), vec![]).at(P)),
        ("guild_delete", GuildDelete(guild_delete).at(P)),
        ("member_add", MemberAdd(full_member()).at(P)),
        ("member_remove", MemberRemove(member_remove).at(P)),
        ("channel_create", ChannelCreate(channel()).at(P)),
        ("channel_delete", ChannelDelete(channel_delete).at(P)),
    ]
}

/// What a type makes of a text: the text again, if it understood it.
type ReadAndWrite = fn(&str) -> Option<String>;

fn bodies() -> Vec<(&'static str, String, ReadAndWrite)> {
    fn body<T: Serialize + DeserializeOwned>(name: &'static str, value: T) -> (&'static str, String, ReadAndWrite) {
        let again: ReadAndWrite = |text| serde_json::to_string(&serde_json::from_str::<T>(text).ok()?).ok();
        (name, serde_json::to_string(&value).unwrap(), again)
    }
    let registered_at = Some(Timestamp::from_ms(NOW_MS - 3_000));
    let user = UserRow::from(User { created_at: registered_at, ..ada() });
    let text = str::to_owned;
    vec![
        body("user", user.clone()),
        body("user_public", UserRow { email: None, ..user.clone() }),
        body("account", AccountRow { user, password_hash: Some(text(HASH)) }),
        body("message", MessageRow::from(full_message())),
        body("message_plain", MessageRow::from(message())),
        body("message_page", MessagePage { messages: vec![message().into()], next_page_state: Some(text("1.opaque")) }),
        body("message_page_last", MessagePage { messages: vec![], next_page_state: None }),
        body("guild", GuildRow::from(full_guild(Visibility::Public))),
        body("guild_private", GuildRow::from(full_guild(Visibility::Private))),
        body("guild_plain", GuildRow::from(guild())),
        body("guilds", vec![GuildRow::from(guild())]),
        body("member", MemberRow::from(full_member())),
        body("member_plain", MemberRow::from(member())),
        body("channel", ChannelRow::from(full_channel())),
        body("channel_plain", ChannelRow::from(channel())),
        body("channels", vec![ChannelRow::from(channel())]),
        body(
            "register",
            RegisterBody { username: text("Ada"), email: text("ada@example.com"), password: text("a long password") },
        ),
        body("registered", Registered { user_id: id(ADA), username: text("Ada") }),
        body("login", LoginBody { email: text("ada@example.com"), password: text("a long password") }),
        body("logged_in", LoggedIn { token: text(TOKEN), user: ada().into() }),
        body("verified", Verified { sub: id(ADA), username: text("Ada"), login: None }),
        body(
            "verified_login",
            Verified { sub: id(ADA), username: text("Ada"), login: Some(Login::new(LOGIN.parse().unwrap(), 1_795_443_456)) },
        ),
        body("begin_login", BeginLoginBody { login_id: LOGIN.parse().unwrap(), user_id: id(ADA), begun: 1_795_443_456 }),
        body("refresh_login", RefreshLoginBody { generation: 7 }),
        body("refreshed", RefreshedRow::Current { user_id: id(ADA), begun: 1_795_443_456, generation: 8 }),
        body("refreshed_replayed", RefreshedRow::Replayed { user_id: id(ADA) }),
        body("refreshed_gone", RefreshedRow::Gone),
        body("revoked", RevokedRow { revoked: true }),
        body("create_user", CreateUserBody { username: text("Ada"), email: text("ada@example.com"), password_hash: text(HASH) }),
        body(
            "create_message",
            CreateMessageBody {
                content: text("Hello"),
                author_id: Some(id(ADA)),
                nonce: Some(text("n-1")),
                reply_to: Some(id(EARLIER)),
            },
        ),
        body("create_message_plain", CreateMessageBody { content: text("Hello"), ..Default::default() }),
        body(
            "create_guild",
            CreateGuildBody {
                name: text("Analytical Engines"),
                creator_user_id: Some(id(ADA)),
                visibility: Some(Visibility::Private),
            },
        ),
        body("create_guild_plain", CreateGuildBody { name: text("Analytical Engines"), ..Default::default() }),
        body("join", JoinBody { user_id: Some(id(BOB)) }),
        body("join_self", JoinBody::default()),
        body("create_channel", CreateChannelBody { name: text("general") }),
        body("event", EventRow::from(joined())),
        body("sent", SentRow::from(sent(full_message(), false))),
        body("sent_again", SentRow::from(sent(message(), true))),
        body("guild_state", GuildStateRow::from(GuildState::new(full_guild(Visibility::Private), vec![full_channel()]))),
        body("memberships", vec![MembershipRow::from(Membership::new(full_guild(Visibility::Public), NOW))]),
        body("error", ErrorBody { error: text("Email already in use"), code: Code::EMAIL_IN_USE }),
    ]
}

fn folder(kind: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", kind].iter().collect()
}

fn golden(kind: &str, name: &str) -> String {
    let path = folder(kind).join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim_end().to_owned()
}

/// The files there are.
fn files(kind: &str) -> BTreeSet<String> {
    let names = std::fs::read_dir(folder(kind)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| name.strip_suffix(".json").unwrap_or_else(|| panic!("{name} is no golden file")).to_owned()).collect()
}

/// The same JSON with a field from the future in every object.
fn with_more(text: &str) -> String {
    fn add(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.values_mut().for_each(add);
                fields.insert("fromTheFuture".into(), serde_json::json!({"op": [1, null], "x": "y"}));
            }
            Value::Array(items) => items.iter_mut().for_each(add),
            _ => {}
        }
    }
    let mut value = serde_json::from_str(text).unwrap();
    add(&mut value);
    value.to_string()
}

#[test]
fn client_frames_match_their_golden_files() {
    for (name, frame) in client_frames() {
        let golden = golden("frames", name);
        assert_eq!(frame.encode(), golden, "{name}");
        assert_eq!(ClientFrame::read(&golden).unwrap(), frame, "{name}");
        assert_eq!(ClientFrame::read(&with_more(&golden)).unwrap(), frame, "{name} with more fields");
    }
}

#[test]
fn server_frames_match_their_golden_files() {
    for (name, frame) in server_frames() {
        let golden = golden("frames", name);
        assert_eq!(frame.encode(), golden, "{name}");
        assert_eq!(Placed::read(&golden).unwrap(), frame, "{name}");
        assert_eq!(Placed::read(&with_more(&golden)).unwrap(), frame, "{name} with more fields");
        let op = frame.frame.op();
        assert!(golden.starts_with(&format!(r#"{{"op":"{op}","d":"#)), "{name} is {op}");
    }
}

#[test]
fn bodies_match_their_golden_files() {
    for (name, text, again) in bodies() {
        let golden = golden("bodies", name);
        assert_eq!(text, golden, "{name}");
        assert_eq!(again(&golden).as_ref(), Some(&golden), "{name} read and written again");
        assert_eq!(again(&with_more(&golden)).as_ref(), Some(&golden), "{name} with more fields");
    }
}

#[test]
fn every_golden_file_is_used() {
    let frames = client_frames().into_iter().map(|(name, _)| name).chain(server_frames().into_iter().map(|(name, _)| name));
    assert_eq!(frames.map(str::to_owned).collect::<BTreeSet<_>>(), files("frames"));
    assert_eq!(bodies().into_iter().map(|(name, ..)| name.to_owned()).collect::<BTreeSet<_>>(), files("bodies"));
}

#[test]
fn every_op_has_a_golden_file() {
    // Ops are the only quoted words in capitals in the source.
    let source = include_str!("../src/frame.rs");
    let is_op = |word: &&str| word.len() > 3 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let ops: BTreeSet<_> =
        source.split('"').skip(1).step_by(2).filter(is_op).filter(|word| *word != "SCREAMING_SNAKE_CASE").collect();
    assert!(ops.contains("HELLO") && ops.contains("TYPING_START"), "{ops:?}");
    let op = |text: String| serde_json::from_str::<Value>(&text).unwrap()["op"].as_str().unwrap().to_owned();
    let covered: BTreeSet<_> = files("frames").iter().map(|name| op(golden("frames", name))).collect();
    assert_eq!(ops.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), covered);
}

#[test]
fn an_event_is_encoded_like_its_frame() {
    for (name, frame) in server_frames() {
        let event = jiscord_core::Event::new(jiscord_core::EventId::NONE, vec![], None, frame.frame.clone());
        assert_eq!(event.text_at(frame.p), golden("frames", name), "{name}");
    }
}

#[test]
fn rows_and_models_say_the_same() {
    fn check<R: From<M> + Clone + PartialEq + std::fmt::Debug, M: From<R> + Clone + PartialEq + std::fmt::Debug>(models: Vec<M>) {
        for model in models {
            let row = R::from(model.clone());
            assert_eq!(M::from(row.clone()), model);
            assert_eq!(R::from(M::from(row.clone())), row);
        }
    }
    check::<UserRow, _>(vec![ada(), User { email: None, created_at: Some(Timestamp::from_ms(NOW_MS)), ..ada() }]);
    check::<AuthorRow, _>(vec![author()]);
    check::<MessageRow, _>(vec![message(), full_message()]);
    check::<GuildRow, _>(vec![guild(), full_guild(Visibility::Public), full_guild(Visibility::Private)]);
    check::<MemberRow, _>(vec![member(), full_member()]);
    check::<ChannelRow, _>(vec![channel(), full_channel()]);
    check::<EventRow, _>(vec![joined(), sent(full_message(), false).events.remove(0)]);
    check::<GuildStateRow, _>(vec![GuildState::new(full_guild(Visibility::Private), vec![channel(), full_channel()])]);
    check::<MembershipRow, _>(vec![Membership::new(guild(), NOW)]);
    let again = Sent::from(SentRow::from(sent(full_message(), true)));
    assert_eq!((again.message, again.events, again.repeated), (full_message(), sent(full_message(), true).events, true));
}

#[test]
fn what_the_first_version_said_is_still_understood() {
    let created = r#""createdAt":"2026-11-23T14:17:36.400Z""#;
    let text = format!(
        r#"{{"op":"MESSAGE_CREATE","d":{{"messageId":"{MESSAGE}","channelId":"{CHANNEL}","authorId":"{ADA}","content":"hi",{created}}}}}"#
    );
    let ServerFrame::MessageCreate(said) = Placed::read(&text).unwrap().frame else { panic!("another frame") };
    assert_eq!(said, Message { content: "hi".into(), rev: 0, ..message() });
    let row = format!(
        r#"{{"message_id":"{MESSAGE}","channel_id":"{CHANNEL}","author_id":"{ADA}","content":"hi","created_at":"2026-11-23T14:17:36.400Z"}}"#
    );
    assert_eq!(Message::from(serde_json::from_str::<MessageRow>(&row).unwrap()), said);
    let row = r#"{"guild_id":"a13d3280-e748-11f1-8000-010000000000","name":"x","created_at":"2026-11-23T14:17:36.400Z"}"#;
    let guild: GuildRow = serde_json::from_str(row).unwrap();
    assert_eq!((guild.rev, guild.owner_id, guild.visibility), (0, None, None));
}
