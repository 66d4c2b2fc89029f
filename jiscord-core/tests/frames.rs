//! Reading frames from somebody who may say anything.

use jiscord_core::{
    ChannelId, ClientFrame, Code, GuildId, MessageId, Placed, Position, ServerFrame, SessionId, Timestamp, Topic, UserId,
    frame::*,
    model::{Author, Channel, Guild, Member, Message, User, Visibility},
};
use proptest::{collection::vec, option, prelude::*};
use uuid::Uuid;

const CHANNEL: &str = "a1897dc0-e748-11f1-8000-010000000000";

#[test]
fn a_client_may_say_too_much_or_too_little() {
    for text in [
        r#"{"op":"HEARTBEAT"}"#,
        r#"{"op":"HEARTBEAT","d":null}"#,
        r#"{"d":{"n":1},"op":"HEARTBEAT","x":0}"#,
        r#" { "op" : "HEART\u0042EAT" , "d" : 17 , "p" : "not ours to read" } "#,
    ] {
        assert_eq!(ClientFrame::read(text).unwrap(), ClientFrame::Heartbeat(()), "{text}");
    }
    let identify = ClientFrame::read(r#"{"op":"IDENTIFY","d":{"token":"t","intents":["messages","from_the_future"],"x":[]}}"#);
    let want = Identify { token: "t".into(), device: None, intents: Some(Intents::MESSAGES), attempt: None };
    assert_eq!(identify.unwrap(), ClientFrame::Identify(want));
    let identify = ClientFrame::read(r#"{"op":"IDENTIFY","d":{"token":"t","intents":[]}}"#).unwrap();
    assert_eq!(
        identify,
        ClientFrame::Identify(Identify { token: "t".into(), device: None, intents: Some(Intents::empty()), attempt: None })
    );
}

#[test]
fn what_is_no_frame_is_malformed() {
    for text in [
        "",
        " ",
        "null",
        "true",
        "1",
        "\"HEARTBEAT\"",
        "[]",
        r#"["HEARTBEAT"]"#,
        r#"["HEARTBEAT",null]"#,
        "{}",
        "{",
        r#"{"d":null}"#,
        r#"{"op":null}"#,
        r#"{"op":1}"#,
        r#"{"op":["HEARTBEAT"]}"#,
        r#"{"op":"HEARTBEAT"} x"#,
        r#"{"op":"HEARTBEAT"}{"op":"HEARTBEAT"}"#,
        r#"{"op":"HEARTBEAT","op":"HEARTBEAT"}"#,
        r#"{"op":"HEARTBEAT","d":1,"d":2}"#,
        r#"{"op":"\ud800"}"#,
        r#"{"op":"HEARTBEAT","d":}"#,
        r#"{"op":"HEARTBEAT","d":nul}"#,
        "{\"op\":\"HEART\nBEAT\"}",
        "\u{feff}{\"op\":\"HEARTBEAT\"}",
        "{'op':'HEARTBEAT'}",
    ] {
        assert!(matches!(ClientFrame::read(text), Err(FrameError::Malformed(_))), "{text:?}");
        assert!(matches!(Placed::read(text), Err(FrameError::Malformed(_))), "{text:?}");
    }
}

#[test]
fn a_body_has_the_right_types() {
    for (op, d) in [
        ("IDENTIFY", ""),
        ("IDENTIFY", r#","d":null"#),
        ("IDENTIFY", r#","d":{}"#),
        ("IDENTIFY", r#","d":"token""#),
        ("IDENTIFY", r#","d":["token"]"#),
        ("IDENTIFY", r#","d":{"token":1}"#),
        ("IDENTIFY", r#","d":{"token":null}"#),
        ("IDENTIFY", r#","d":{"token":"a","token":"b"}"#),
        ("IDENTIFY", r#","d":{"token":"\udc00"}"#),
        ("IDENTIFY", r#","d":{"token":"a","device":7}"#),
        ("IDENTIFY", r#","d":{"token":"a","intents":"messages"}"#),
        ("IDENTIFY", r#","d":{"token":"a","intents":[1]}"#),
        ("SEND_MESSAGE", r#","d":{"content":"hi"}"#),
        ("SEND_MESSAGE", r#","d":{"channelId":"1","content":"hi"}"#),
        ("SEND_MESSAGE", r#","d":{"channelId":7,"content":"hi"}"#),
        ("SEND_MESSAGE", r#","d":{"channelId":"a1897dc0-e748-11f1-8000-010000000000"}"#),
        ("SEND_MESSAGE", r#","d":{"channelId":"a1897dc0-e748-11f1-8000-010000000000","content":null}"#),
        ("TYPING_START", r#","d":{"channel_id":"a1897dc0-e748-11f1-8000-010000000000"}"#),
        ("TYPING_START", r#","d":["a1897dc0-e748-11f1-8000-010000000000"]"#),
        ("RESUME", r#","d":{"token":"a","sessionId":"0f8fad5b-d9cb-469f-a165-70867728950e","epoch":"e","after":-1}"#),
        ("RESUME", r#","d":{"token":"a","sessionId":"0f8fad5b-d9cb-469f-a165-70867728950e","epoch":"e","after":1.5}"#),
        ("RESUME", r#","d":{"token":"a","sessionId":"0f8fad5b-d9cb-469f-a165-70867728950e","epoch":"e","after":1e400}"#),
        ("RESUME", r#","d":{"token":"a","sessionId":"0f8fad5b-d9cb-469f-a165-70867728950e","epoch":"e"}"#),
    ] {
        let text = format!(r#"{{"op":"{op}"{d}}}"#);
        match ClientFrame::read(&text) {
            Err(FrameError::Body { op: named, .. }) => assert_eq!(named, op, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn an_unknown_op_is_named_but_not_repeated_at_length() {
    for op in ["HELLO", "heartbeat", "PRESENCE_UPDATE", "HEARTBEAT ", ""] {
        let read = ClientFrame::read(&format!(r#"{{"op":"{op}","d":{{}}}}"#));
        assert!(matches!(&read, Err(FrameError::UnknownOp(named)) if named == op), "{op:?}: {read:?}");
    }
    assert!(matches!(Placed::read(r#"{"op":"IDENTIFY","d":{"token":"t"}}"#), Err(FrameError::UnknownOp(_))));
    let long = format!(r#"{{"op":"{}"}}"#, "é".repeat(10_000));
    let Err(FrameError::UnknownOp(named)) = ClientFrame::read(&long) else { panic!("known?") };
    assert_eq!(named.chars().count(), 64);
}

#[test]
fn depth_and_length_do_no_harm() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let typing = |more: &str| format!(r#"{{"op":"TYPING_START","d":{{"channelId":"{CHANNEL}"{more}}}}}"#);
    let typed = ClientFrame::TypingStart(TypingStart { channel_id: CHANNEL.parse().unwrap() });
    // 127 levels of all, and what is skipped counts.
    assert_eq!(ClientFrame::read(&format!(r#"{{"op":"HEARTBEAT","d":{}}}"#, nested(126))).unwrap(), ClientFrame::Heartbeat(()));
    assert_eq!(ClientFrame::read(&typing(&format!(r#","x":{}"#, nested(125)))).unwrap(), typed);
    for levels in [127, 128, 129, 100_000] {
        let deep = nested(levels);
        for (op, text) in [
            ("HEARTBEAT", format!(r#"{{"op":"HEARTBEAT","d":{deep}}}"#)),
            ("HEARTBEAT", format!(r#"{{"op":"HEARTBEAT","x":{deep}}}"#)),
            ("HEARTBEAT", format!(r#"{{"op":"HEARTBEAT","p":{deep}}}"#)),
            ("TYPING_START", format!(r#"{{"op":"TYPING_START","d":{deep}}}"#)),
            ("TYPING_START", format!(r#"{{"op":"TYPING_START","d":{{"channelId":{deep}}}}}"#)),
            ("TYPING_START", typing(&format!(r#","x":{deep}"#))),
        ] {
            let read = ClientFrame::read(&text);
            assert!(matches!(&read, Err(FrameError::Body { op: named, .. }) if named == op), "{op}, {levels} levels: {read:?}");
        }
    }
    // Nor may what is skipped have a key twice.
    assert!(ClientFrame::read(&typing(r#","x":1,"x":2"#)).is_err());
    assert!(ClientFrame::read(r#"{"op":"HEARTBEAT","x":1,"x":2}"#).is_err());
    let content = "x".repeat(1 << 20);
    let long = format!(r#"{{"op":"SEND_MESSAGE","d":{{"channelId":"{CHANNEL}","content":"{content}"}}}}"#);
    assert!(matches!(ClientFrame::read(&long).unwrap(), ClientFrame::SendMessage(send) if send.content == content));
}

#[test]
fn secrets_are_not_shown() {
    let session = "0f8fad5b-d9cb-469f-a165-70867728950e";
    for text in [
        r#"{"op":"IDENTIFY","d":{"token":"hush","device":"phone"}}"#.to_owned(),
        format!(r#"{{"op":"RESUME","d":{{"token":"hush","sessionId":"{session}","epoch":"e","after":1}}}}"#),
    ] {
        let shown = format!("{:?}", ClientFrame::read(&text).unwrap());
        assert!(!shown.contains("hush"), "{shown}");
    }
}

fn uuids() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn times() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(|ms| Timestamp::from_ms(ms % 300_000_000_000_000))
}

fn intents() -> impl Strategy<Value = Option<Intents>> {
    option::of(any::<u32>().prop_map(Intents::from_bits_truncate))
}

fn attempts() -> impl Strategy<Value = Option<Attempt>> {
    option::of(any::<(u32, u32)>().prop_map(|(client, number)| Attempt { client, number }))
}

fn client_frames() -> impl Strategy<Value = ClientFrame> {
    let device = || option::of(any::<String>());
    prop_oneof![
        Just(ClientFrame::Heartbeat(())),
        (any::<String>(), device(), intents(), attempts()).prop_map(|(token, device, intents, attempt)| {
            ClientFrame::Identify(Identify { token, device, intents, attempt })
        }),
        (any::<String>(), uuids(), device(), intents(), attempts(), any::<String>(), any::<u64>()).prop_map(
            |(token, session, device, intents, attempt, epoch, after)| {
                let (session_id, after) = (SessionId::new(session), Position(after));
                ClientFrame::Resume(Resume { token, session_id, device, intents, attempt, epoch, after })
            }
        ),
        (uuids(), any::<String>(), option::of(any::<String>()), option::of(uuids())).prop_map(
            |(channel, content, nonce, reply_to)| {
                let (channel_id, reply_to) = (ChannelId::new(channel), reply_to.map(MessageId::new));
                ClientFrame::SendMessage(SendMessage { channel_id, content, nonce, reply_to })
            }
        ),
        uuids().prop_map(|id| ClientFrame::TypingStart(TypingStart { channel_id: ChannelId::new(id) })),
    ]
}

fn messages() -> impl Strategy<Value = Message> {
    let optional = (option::of(any::<String>()), option::of(any::<String>()), option::of(uuids()));
    (uuids(), uuids(), uuids(), any::<String>(), times(), any::<u64>(), optional).prop_map(
        |(message, channel, author, content, created_at, rev, (username, nonce, reply_to))| {
            let author_id = UserId::new(author);
            Message {
                message_id: MessageId::new(message),
                channel_id: ChannelId::new(channel),
                author_id,
                content,
                created_at,
                author: username.map(|username| Author { user_id: author_id, username }),
                rev,
                nonce,
                reply_to: reply_to.map(MessageId::new),
            }
        },
    )
}

fn guilds() -> impl Strategy<Value = Guild> {
    let visibility = option::of(prop_oneof![Just(Visibility::Public), Just(Visibility::Private)]);
    (uuids(), any::<String>(), times(), any::<u64>(), option::of(uuids()), visibility).prop_map(
        |(guild, name, created_at, rev, owner, visibility)| Guild {
            guild_id: GuildId::new(guild),
            name,
            created_at,
            rev,
            owner_id: owner.map(UserId::new),
            visibility,
        },
    )
}

fn channels() -> impl Strategy<Value = Channel> {
    (uuids(), uuids(), any::<String>(), times(), any::<u64>(), option::of(uuids())).prop_map(
        |(channel, guild, name, created_at, rev, last)| Channel {
            channel_id: ChannelId::new(channel),
            guild_id: GuildId::new(guild),
            name,
            created_at,
            rev,
            last_message_id: last.map(MessageId::new),
        },
    )
}

fn server_frames() -> impl Strategy<Value = ServerFrame> {
    let topics = vec(
        (uuids(), any::<bool>()).prop_map(|(id, guild)| match guild {
            true => Topic::Guild(GuildId::new(id)),
            false => Topic::User(UserId::new(id)),
        }),
        0..4,
    );
    let members = (uuids(), uuids(), option::of(any::<String>()), times(), any::<u64>()).prop_map(
        |(guild, user, username, joined_at, rev)| Member {
            guild_id: GuildId::new(guild),
            user_id: UserId::new(user),
            username,
            joined_at,
            rev,
        },
    );
    let users = (uuids(), any::<String>(), option::of(any::<String>()), option::of(times()))
        .prop_map(|(id, username, email, created_at)| User { user_id: UserId::new(id), username, email, created_at });
    let errors = (option::of(any::<String>()), option::of(any::<String>()), option::of(any::<u64>()));
    prop_oneof![
        any::<u64>().prop_map(|heartbeat_interval| ServerFrame::Hello(Hello { heartbeat_interval })),
        Just(ServerFrame::HeartbeatAck(())),
        Just(ServerFrame::InvalidSession(())),
        any::<u64>().prop_map(|replayed| ServerFrame::Resumed(Resumed { replayed })),
        any::<u64>().prop_map(|retry_after| ServerFrame::Reconnect(Reconnect { retry_after })),
        (option::of(topics), any::<String>(), option::of(any::<u64>()))
            .prop_map(|(topics, epoch, spread)| ServerFrame::Resync(Resync { topics, epoch, spread })),
        (users, uuids(), vec(guilds(), 0..3), any::<u32>(), any::<String>()).prop_map(
            |(user, session, guilds, protocol, epoch)| {
                let (user_id, session_id) = (user.user_id, SessionId::new(session));
                ServerFrame::Ready(Ready { user_id, session_id, user, guilds, protocol, epoch })
            }
        ),
        (any::<String>(), errors).prop_map(|(message, (op, nonce, retry_after))| {
            ServerFrame::Error(ErrorFrame { code: Code::BUSY, message, op, nonce, retry_after })
        }),
        (any::<String>(), uuids(), uuids()).prop_map(|(nonce, message, channel)| {
            let (message_id, channel_id) = (MessageId::new(message), ChannelId::new(channel));
            ServerFrame::MessageAck(MessageAck { nonce, message_id, channel_id })
        }),
        messages().prop_map(ServerFrame::MessageCreate),
        (uuids(), uuids(), any::<i64>()).prop_map(|(channel, user, timestamp)| {
            ServerFrame::Typing(Typing { channel_id: ChannelId::new(channel), user_id: UserId::new(user), timestamp })
        }),
        (guilds(), vec(channels(), 0..3)).prop_map(|(guild, channels)| ServerFrame::GuildCreate(GuildCreate { guild, channels })),
        (uuids(), any::<u64>())
            .prop_map(|(guild, rev)| ServerFrame::GuildDelete(GuildDelete { guild_id: GuildId::new(guild), rev })),
        members.prop_map(ServerFrame::MemberAdd),
        (uuids(), uuids(), any::<u64>()).prop_map(|(guild, user, rev)| {
            ServerFrame::MemberRemove(MemberRemove { guild_id: GuildId::new(guild), user_id: UserId::new(user), rev })
        }),
        channels().prop_map(ServerFrame::ChannelCreate),
        (uuids(), uuids(), any::<u64>()).prop_map(|(channel, guild, rev)| {
            let (channel_id, guild_id) = (ChannelId::new(channel), GuildId::new(guild));
            ServerFrame::ChannelDelete(ChannelDelete { channel_id, guild_id, rev })
        }),
    ]
}

/// Text that gets past the first brace more often than any text does.
fn almost_frames() -> impl Strategy<Value = String> {
    let ops = prop_oneof![Just("HEARTBEAT"), Just("IDENTIFY"), Just("RESUME"), Just("SEND_MESSAGE"), Just("READY"), Just("X")];
    let bodies = prop_oneof![any::<String>(), any::<String>().prop_map(|text| format!(r#"{{"token":{text:?}}}"#))];
    (ops, bodies).prop_map(|(op, body)| format!(r#"{{"op":"{op}","d":{body}}}"#))
}

proptest! {
    #[test]
    fn reading_never_panics(text in prop_oneof![any::<String>(), almost_frames()]) {
        let _ = (ClientFrame::read(&text), Placed::read(&text));
    }

    #[test]
    fn cut_frames_are_no_frames(frame in client_frames(), cut in any::<prop::sample::Index>()) {
        let text = frame.encode();
        let cut = (0..cut.index(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        prop_assert!(ClientFrame::read(&text[..cut]).is_err());
    }

    #[test]
    fn client_frames_are_read_as_they_were_written(frame in client_frames()) {
        prop_assert_eq!(ClientFrame::read(&frame.encode()).unwrap(), frame);
    }

    #[test]
    fn server_frames_are_read_as_they_were_written(frame in server_frames(), p in option::of(any::<u64>())) {
        let placed = frame.at(p.map(Position));
        prop_assert_eq!(Placed::read(&placed.encode()).unwrap(), placed);
    }
}
