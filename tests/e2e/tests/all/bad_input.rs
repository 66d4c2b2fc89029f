//! Whatever comes in: it is refused in the right words, nothing is stored, and the server goes on.

use jiscord_e2e::{Deployment, Logged, Person, Raw, Socket, frame, nobodys_id};
use serde_json::{Value, json};

use crate::tokens;

/// A server with a guild that `ada` and `bob` are in and `eve` is not, and what is stored in it.
struct Town {
    server: Deployment,
    ada: Person,
    eve: Person,
    guild: String,
    channel: String,
    message: String,
    /// A message in another channel of the same guild.
    elsewhere: (String, String),
    stored: (Vec<Value>, Vec<Logged>),
}

impl Town {
    async fn new() -> Self {
        let server = Deployment::start().await;
        let (ada, eve) = (server.register("ada").await, server.register("eve").await);
        let guild = ada.create_guild("Computing").await;
        let channel = ada.create_channel(&guild, "engines").await;
        let other = ada.create_channel(&guild, "looms").await;
        let id = |row: Value| row["message_id"].as_str().unwrap().to_owned();
        let message = id(ada.post(&channel, json!({"content": "first"})).await);
        let elsewhere = id(ada.post(&other, json!({"content": "there"})).await);
        let stored = (ada.history(&channel).await, server.events());
        assert_eq!((stored.0.len(), stored.1.len()), (1, 5));
        Self { server, ada, eve, guild, channel, message, elsewhere: (other, elsewhere), stored }
    }

    /// The server serves as before, and holds what it held before.
    async fn is_unharmed(&self) {
        assert_eq!(self.ada.data.get("/health").await.is(200)["status"], "ok");
        assert_eq!((self.ada.history(&self.channel).await, self.server.events()), self.stored);
        let mut socket = self.ada.connect().await;
        socket.send(&self.channel, "still there?").await;
        socket.hear("MESSAGE_CREATE").await;
    }

    fn messages(&self) -> String {
        format!("/channels/{}/messages", self.channel)
    }

    async fn raw_session(&self) -> Raw {
        let mut raw = Raw::connect(&self.server.ws()).await;
        assert_eq!(raw.upgrade("").await, 101);
        let identify = json!({"op": "IDENTIFY", "d": {"token": self.ada.token, "device": "raw"}});
        raw.write(&frame(0x81, identify.to_string().as_bytes())).await.unwrap();
        raw.hear("READY").await;
        raw
    }
}

#[tokio::test]
async fn a_bad_command_is_answered_and_the_session_goes_on() {
    let town = Town::new().await;
    let (channel, message) = (&town.channel, &town.message);
    let send = |d: Value| json!({"op": "SEND_MESSAGE", "d": d}).to_string();
    let say = |content: String| send(json!({"channelId": channel, "content": content, "nonce": "n"}));
    let at = |channel: Value| send(json!({"channelId": channel, "content": "hi", "nonce": "n"}));
    let typing = |d: Value| json!({"op": "TYPING_START", "d": d}).to_string();
    let (sending, types) = (Some("SEND_MESSAGE"), Some("TYPING_START"));
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));

    // For each: what is said, and the code, op and nonce of the ERROR.
    let of_members = [
        (r#"{"op":"DANCE"}"#.to_owned(), "unknown_op", Some("DANCE"), None),
        (r#"{"op":"","d":{}}"#.into(), "unknown_op", Some(""), None),
        (r#"{"op":"heartbeat"}"#.into(), "unknown_op", Some("heartbeat"), None),
        (r#"{"op":"MESSAGE_CREATE","d":{}}"#.into(), "unknown_op", Some("MESSAGE_CREATE"), None),
        (r#"{"op":"SEND_MESSAGE"}"#.into(), "malformed", sending, None),
        (send(json!(null)), "malformed", sending, None),
        (send(json!([])), "malformed", sending, None),
        (send(json!("hi")), "malformed", sending, None),
        (send(json!({"content": "hi"})), "malformed", sending, None),
        (send(json!({"channelId": channel})), "malformed", sending, None),
        (send(json!({"channelId": channel, "content": 1})), "malformed", sending, None),
        (send(json!({"channelId": channel, "content": null})), "malformed", sending, None),
        (send(json!({"channelId": channel, "content": ["hi"]})), "malformed", sending, None),
        (send(json!({"channelId": channel, "content": "hi", "nonce": 1})), "malformed", sending, None),
        (send(json!({"channelId": channel, "content": "hi", "replyTo": "first"})), "malformed", sending, None),
        (at(json!("engines")), "malformed", sending, None),
        (at(json!("")), "malformed", sending, None),
        (at(json!(7)), "malformed", sending, None),
        (at(json!(channel.replace('-', ""))), "malformed", sending, None),
        (at(json!(format!("{{{channel}}}"))), "malformed", sending, None),
        (at(json!(format!("{channel}' OR '1'='1"))), "malformed", sending, None),
        (say("x".into()).replace("\"x\"", r#""x","content":"y""#), "malformed", sending, None),
        (say("x".into()).replace("\"x\"", r#""\ud800""#), "malformed", sending, None),
        (say("x".into()).replace("\"x\"", &deep), "malformed", sending, None),
        (at(json!(nobodys_id())), "not_found", sending, Some("n")),
        (at(json!(town.guild)), "not_found", sending, Some("n")),
        (at(json!(message)), "not_found", sending, Some("n")),
        (at(json!(channel)).replace("\"hi\"", "\"\""), "invalid", sending, Some("n")),
        (say(" \t\r\n\u{a0}\u{3000}".into()), "invalid", sending, Some("n")),
        (say("x".repeat(4_001)), "invalid", sending, Some("n")),
        (say("😀".repeat(4_001)), "invalid", sending, Some("n")),
        (send(json!({"channelId": channel, "content": "hi", "nonce": ""})), "invalid", sending, Some("")),
        (send(json!({"channelId": channel, "content": "hi", "replyTo": nobodys_id()})), "not_found", sending, None),
        (send(json!({"channelId": channel, "content": "hi", "replyTo": town.elsewhere.1})), "not_found", sending, None),
        (r#"{"op":"TYPING_START"}"#.into(), "malformed", types, None),
        (typing(json!({})), "malformed", types, None),
        (typing(json!({"channelId": "engines"})), "malformed", types, None),
        (typing(json!({"channelId": nobodys_id()})), "not_found", types, None),
        (typing(json!({"channelId": town.guild})), "not_found", types, None),
    ];
    let of_strangers = [
        (at(json!(channel)), "not_found", sending, Some("n")),
        (typing(json!({"channelId": channel})), "not_found", types, None),
        (send(json!({"channelId": channel, "content": "hi", "replyTo": message})), "not_found", sending, None),
    ];

    let (mut ada, mut eve) = (town.ada.connect().await, town.eve.connect().await);
    let cases = of_members.into_iter().map(|case| (true, case)).chain(of_strangers.into_iter().map(|case| (false, case)));
    for (member, (text, code, op, nonce)) in cases {
        let socket = if member { &mut ada } else { &mut eve };
        socket.say_text(&text).await;
        let case: String = text.chars().take(120).collect();
        let answer = socket.next().await.unwrap();
        assert_eq!(answer["op"], "ERROR", "{case}: {answer}");
        let error = &answer["d"];
        assert_eq!(
            (error["code"].as_str(), error.get("op").and_then(Value::as_str), error.get("nonce").and_then(Value::as_str)),
            (Some(code), op, nonce),
            "{case}"
        );
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{case}");
    }
    for socket in [&mut ada, &mut eve] {
        socket.say("HEARTBEAT", json!({"x": deep})).await;
        socket.hear("HEARTBEAT_ACK").await;
    }
    ada.say_text(&send(json!({"channelId": channel, "content": "hi", "nonce": "n".repeat(65)}))).await;
    assert_eq!(ada.hear("ERROR").await["d"]["code"], "invalid");
    town.is_unharmed().await;
}

#[tokio::test]
async fn what_is_just_within_the_limits_is_taken() {
    let town = Town::new().await;
    let mut ada = town.ada.connect().await;
    for (n, content) in
        ["x".repeat(4_000), "😀".repeat(4_000), format!("  {}\n", "x".repeat(4_000)), "\u{202e}".into()].into_iter().enumerate()
    {
        ada.send_once(&town.channel, &content, &format!("{n:064}")).await;
        ada.hear_past("MESSAGE_ACK").await;
        assert_eq!(town.ada.history(&town.channel).await[0]["content"], content.trim());
    }
    // A frame of 64 KiB to the byte.
    let open = r#"{"op":"HEARTBEAT","d":""#;
    ada.say_text(&format!(r#"{open}{}"}}"#, "x".repeat(65_536 - open.len() - 2))).await;
    ada.hear_past("HEARTBEAT_ACK").await;
    // Unknown fields are for later versions.
    ada.say("SEND_MESSAGE", json!({"channelId": town.channel, "content": "hi", "colour": {"r": 1}})).await;
    while ada.hear_past("MESSAGE_CREATE").await["d"]["content"] != "hi" {}
}

#[tokio::test]
async fn what_is_no_frame_ends_the_connection() {
    let town = Town::new().await;
    let identify = |token: &str| json!({"op": "IDENTIFY", "d": {"token": token}}).to_string();
    let big = json!({"op": "HEARTBEAT", "d": "x".repeat(65_536)}).to_string();

    for (text, ops, code) in [
        ("hello", vec![], 4002),
        ("", vec![], 4002),
        ("{}", vec![], 4002),
        ("[]", vec![], 4002),
        ("null", vec![], 4002),
        (r#"{"op":1}"#, vec![], 4002),
        (r#"{"op":"HEARTBEAT"}}"#, vec![], 4002),
        ("\u{feff}{\"op\":\"HEARTBEAT\"}", vec![], 4002),
        (r#"{"op":"HEARTBEAT","op":"IDENTIFY"}"#, vec![], 4002),
        (r#"{"op":"HEARTBEAT","d":NaN}"#, vec![], 4002),
        (r#"{"op":"SEND_MESSAGE","d":{}}"#, vec![], 4003),
        (r#"{"op":"TYPING_START","d":{}}"#, vec![], 4003),
        (r#"{"op":"DANCE"}"#, vec![], 4003),
        (&*big, vec![], 1009),
    ] {
        let mut socket = Socket::open(&town.server.ws()).await;
        socket.say_text(text).await;
        let case: String = text.chars().take(60).collect();
        let expected: (Vec<String>, _) = (ops, Some(code));
        assert_eq!(socket.last_words().await, expected, "before IDENTIFY: {case}");
    }
    let mut socket = Socket::open(&town.server.ws()).await;
    socket.send(&town.channel, "I am nobody").await;
    assert_eq!(socket.last_words().await, (vec![], Some(4003)));

    for (text, code) in [
        ("hello", 4002),
        ("{}", 4002),
        (r#"{"op":["SEND_MESSAGE"]}"#, 4002),
        (r#"{"op":"SEND_MESSAGE","op":"SEND_MESSAGE","d":{}}"#, 4002),
        (&*identify(&town.ada.token), 4005),
        (&*identify("forged"), 4005),
        (&*big, 1009),
    ] {
        let mut socket = town.ada.connect().await;
        socket.say_text(text).await;
        let case: String = text.chars().take(60).collect();
        assert_eq!(socket.last_words().await, (vec![], Some(code)), "in a session: {case}");
    }
    for identified in [false, true] {
        let mut socket = if identified { town.ada.connect().await } else { Socket::open(&town.server.ws()).await };
        socket.say_binary(br#"{"op":"HEARTBEAT"}"#).await;
        assert_eq!(socket.last_words().await, (vec![], Some(4002)));
    }
    town.is_unharmed().await;
}

#[tokio::test]
async fn a_bad_identify_can_be_said_again_but_not_a_bad_device() {
    let town = Town::new().await;
    let mut socket = Socket::open(&town.server.ws()).await;
    for d in
        [json!(null), json!({}), json!({"token": 1}), json!({"token": "a", "device": 1}), json!({"token": "a", "intents": 7})]
    {
        socket.say("IDENTIFY", d.clone()).await;
        let error = socket.hear("ERROR").await["d"].take();
        assert_eq!((&error["code"], &error["op"]), (&json!("malformed"), &json!("IDENTIFY")), "{d}");
    }
    socket.say("IDENTIFY", json!({"token": town.ada.token, "intents": ["messages", "cosmic_rays"]})).await;
    socket.hear("READY").await;

    for device in ["", &"d".repeat(65)] {
        let mut socket = Socket::open(&town.server.ws()).await;
        socket.say("IDENTIFY", json!({"token": town.ada.token, "device": device})).await;
        assert_eq!(socket.hear("ERROR").await["d"]["code"], "invalid");
        assert_eq!(socket.last_words().await, (vec![], Some(4003)));
    }
    town.is_unharmed().await;
}

#[tokio::test]
async fn a_bad_token_ends_with_4004() {
    let town = Town::new().await;
    let secret = town.server.jwt_secret();
    let (good, claims) = tokens::good(&town.ada, &secret);
    let mut socket = Socket::open(&town.server.ws()).await;
    socket.say("IDENTIFY", json!({"token": good})).await;
    socket.hear("READY").await;

    let mut gone = claims.clone();
    gone["sub"] = json!(nobodys_id());
    let gone = ("a user who is not there".to_owned(), tokens::token(tokens::HS256, &gone.to_string(), &secret));
    for (why, token) in tokens::bad(&town.ada, &secret).into_iter().chain([gone]) {
        let mut socket = Socket::open(&town.server.ws()).await;
        socket.say("IDENTIFY", json!({"token": token})).await;
        let end = socket.last_words().await;
        // A token too big for a first frame is not even looked at.
        let expected = if token.len() > 4_000 { (vec![], Some(1009)) } else { (vec!["INVALID_SESSION".into()], Some(4004)) };
        assert_eq!(end, expected, "{why}");
    }
    town.is_unharmed().await;
}

#[tokio::test]
async fn frames_that_break_the_rules_of_websockets_end_the_connection() {
    const TEXT: u8 = 0x81;
    let town = Town::new().await;
    let claims = |length: u64| [&[TEXT, 0x80 | 127][..], &length.to_be_bytes(), &[0; 4], b"x"].concat();
    let fragments = |first: u8, n: usize| [vec![frame(first, b"x")], vec![frame(0x00, b"x"); n]].concat().concat();
    for (name, bytes, codes) in [
        ("fragments without end", fragments(0x01, 1_000), &[1009][..]),
        ("empty fragments without end", [vec![frame(0x01, b"")], vec![frame(0x00, b""); 1_000]].concat().concat(), &[1009]),
        ("fragments that are too big together", [frame(0x01, &[b'x'; 40_000]), frame(0x80, &[b'x'; 40_000])].concat(), &[1009]),
        ("a header that claims 2^63 bytes", claims(1 << 63), &[1009, 1002]),
        ("a header that claims 2^63 - 1 bytes", claims((1 << 63) - 1), &[1009]),
        ("a header that claims 2^64 - 1 bytes", claims(u64::MAX), &[1009, 1002]),
        ("a header that claims a gigabyte", claims(1 << 30), &[1009]),
        ("a frame without a mask", [&[TEXT, 18][..], br#"{"op":"HEARTBEAT"}"#].concat(), &[1002]),
        ("a reserved bit", frame(TEXT | 0x40, br#"{"op":"HEARTBEAT"}"#), &[1002]),
        ("an opcode that is none", frame(0x83, b"x"), &[1002]),
        ("the rest of nothing", frame(0x80, b"x"), &[1002]),
        ("a message within a message", [frame(0x01, b"x"), frame(TEXT, b"x")].concat(), &[1002]),
        ("a ping in fragments", frame(0x09, b"x"), &[1002]),
        ("a ping of 126 bytes", frame(0x89, &[b'x'; 126]), &[1002]),
        ("no UTF-8", frame(TEXT, b"\xff\xfe"), &[1007]),
        ("a flood of pings", vec![frame(0x89, b"x"); 500].concat(), &[4008]),
        ("a flood of pongs", vec![frame(0x8a, b"x"); 500].concat(), &[4008]),
    ] {
        let mut raw = town.raw_session().await;
        let _ = raw.write(&bytes).await;
        let code = raw.close_code().await;
        assert!(code.is_some_and(|code| codes.contains(&code)), "{name}: {code:?}, not one of {codes:?}");
        raw.ended().await;
    }
    town.is_unharmed().await;
}

#[tokio::test]
async fn a_message_in_a_few_fragments_is_a_message() {
    let town = Town::new().await;
    let mut raw = town.raw_session().await;
    let text = json!({"op": "SEND_MESSAGE", "d": {"channelId": town.channel, "content": "in pieces"}}).to_string();
    let (a, b) = text.as_bytes().split_at(10);
    raw.write(&[frame(0x01, a), frame(0x89, b"are you there?"), frame(0x80, b)].concat()).await.unwrap();
    assert_eq!(raw.hear("MESSAGE_CREATE").await["d"]["content"], "in pieces");
}

#[tokio::test]
async fn a_socket_opens_only_for_pages_of_ours() {
    let town = Town::new().await;
    let host = Raw::connect(&town.server.ws()).await.host().to_owned();
    let name = host.split(':').next().unwrap();
    for (origin, status) in [
        (None, 101),
        (Some(format!("http://{host}")), 101),
        (Some("http://localhost:5173".into()), 101),
        (Some("http://evil.example".into()), 403),
        (Some("null".into()), 403),
        (Some(String::new()), 403),
        (Some(format!("http://{name}")), 403),
        (Some(format!("http://{host}.evil.example")), 403),
        (Some(format!("http://{host}@evil.example")), 403),
        (Some(format!("http://evil.example/{host}")), 403),
        (Some("https://localhost:5173".into()), 403),
        (Some("http://localhost:51730".into()), 403),
        (Some("http://localhost:5173.evil.example".into()), 403),
        (Some("file://".into()), 403),
    ] {
        let mut raw = Raw::connect(&town.server.ws()).await;
        let header = origin.as_ref().map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
        assert_eq!(raw.upgrade(&header).await, status, "{origin:?}");
    }
    // Who does not ask for a WebSocket is told that this is one.
    for header in
        ["Connection: keep-alive", "Upgrade: h2c, websocket\r\nConnection: Upgrade", "Upgrade: websocket\r\nConnection: Upgrade"]
    {
        let mut raw = Raw::connect(&town.server.ws()).await;
        let request = format!("GET {} HTTP/1.1\r\nHost: {host}\r\n{header}\r\nSec-WebSocket-Version: 12\r\n\r\n", raw.path());
        raw.write(request.as_bytes()).await.unwrap();
        assert_eq!(raw.status().await, Some(426), "{header}");
    }
    town.is_unharmed().await;
}

#[tokio::test]
async fn a_request_with_too_much_of_a_head_is_refused() {
    let town = Town::new().await;
    for (name, target, headers, status) in [
        ("a header over 16 KiB", "/health".to_owned(), format!("X: {}\r\n", "x".repeat(17 << 10)), 431),
        ("a hundred headers", "/health".into(), "X: x\r\n".repeat(100), 431),
        ("a target over 8 KiB", format!("/health?{}", "x".repeat(9 << 10)), String::new(), 414),
        ("two lengths", "/health".into(), "Content-Length: 1\r\nContent-Length: 2\r\n".into(), 400),
        ("a length that is none", "/health".into(), "Content-Length: -1\r\n".into(), 400),
        ("a header without a name", "/health".into(), ": x\r\n".into(), 400),
        ("a line that goes on", "/health".into(), "X: x\r\n y\r\n".into(), 400),
        ("a space before the colon", "/health".into(), "Content-Length : 1\r\n".into(), 400),
    ] {
        for base in [town.server.data(), town.server.auth(), town.server.ws()] {
            let mut raw = Raw::connect(&base).await;
            let request = format!("GET {}{target} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", raw.path(), raw.host());
            let _ = raw.write(request.as_bytes()).await;
            assert_eq!(raw.status().await, Some(status), "{name}");
        }
    }
    town.is_unharmed().await;
}

#[tokio::test]
async fn a_bad_body_is_refused() {
    let town = Town::new().await;
    let (ada, messages) = (&town.ada, town.messages());
    let guilds = "/guilds".to_owned();
    let (channels, members) = (format!("/guilds/{}/channels", town.guild), format!("/guilds/{}/members", town.guild));
    let content = |content: &str| json!({"content": content}).to_string();
    let named = |name: &str| json!({"name": name}).to_string();
    let (malformed, invalid) = ((400, "malformed"), (422, "invalid"));
    for (path, body, (status, code)) in [
        (&messages, String::new(), malformed),
        (&messages, "{".into(), malformed),
        (&messages, "hello".into(), malformed),
        (&messages, "null".into(), malformed),
        (&messages, "[]".into(), malformed),
        (&messages, "{}".into(), malformed),
        (&messages, json!({"content": 1}).to_string(), malformed),
        (&messages, json!({"content": null}).to_string(), malformed),
        (&messages, json!({"content": {"text": "hi"}}).to_string(), malformed),
        (&messages, json!({"content": "hi", "nonce": 7}).to_string(), malformed),
        (&messages, json!({"content": "hi", "author_id": "ada"}).to_string(), malformed),
        (&messages, json!({"content": "hi", "reply_to": "first"}).to_string(), malformed),
        (&messages, r#"{"content":"hi"} {"content":"again"}"#.into(), malformed),
        (&messages, r#"{"content":"hi","content":"again"}"#.into(), malformed),
        (&messages, r#"{"content":"\ud800"}"#.into(), malformed),
        (&messages, format!("\u{feff}{}", content("hi")), malformed),
        (&messages, format!(r#"{{"content":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000)), malformed),
        (&messages, content(""), invalid),
        (&messages, content(" \n\t"), invalid),
        (&messages, content(&"x".repeat(4_001)), invalid),
        (&messages, json!({"content": "hi", "nonce": ""}).to_string(), invalid),
        (&messages, json!({"content": "hi", "nonce": "n".repeat(65)}).to_string(), invalid),
        (&messages, json!({"content": "hi", "nonce": "é".repeat(33)}).to_string(), invalid),
        (&messages, json!({"content": "hi", "author_id": town.eve.id}).to_string(), (403, "forbidden")),
        (&messages, json!({"content": "hi", "reply_to": nobodys_id()}).to_string(), (404, "not_found")),
        (&messages, json!({"content": "hi", "reply_to": town.elsewhere.1}).to_string(), (404, "not_found")),
        (&guilds, "{}".into(), malformed),
        (&guilds, json!({"name": 1}).to_string(), malformed),
        (&guilds, json!({"name": "Secret", "visibility": "hidden"}).to_string(), malformed),
        (&guilds, named("x"), invalid),
        (&guilds, named(&"x".repeat(101)), invalid),
        (&guilds, named("a\u{200b}b"), invalid),
        (&guilds, named("a\u{202e}b"), invalid),
        (&guilds, named("a\0b"), invalid),
        (&guilds, named("x\u{301}\u{301}\u{301}\u{301}\u{301}"), invalid),
        (&channels, "{}".into(), malformed),
        (&channels, named(" x "), invalid),
        (&channels, named("a\nb"), invalid),
        (&members, json!({"user_id": "ada"}).to_string(), malformed),
        (&members, "[1]".into(), malformed),
        (&members, json!({"user_id": town.eve.id}).to_string(), (403, "forbidden")),
    ] {
        let case = format!("{path} {}", body.chars().take(80).collect::<String>());
        ada.data.call("POST", path, Some("application/json"), body).await.is_error_of(&case, status, code);
    }

    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp"), Some("")]
    {
        let answer = ada.data.call("POST", &messages, content_type, content("hi")).await;
        answer.is_error_of(&format!("{content_type:?}"), 415, "unsupported_media_type");
    }
    // 256 KiB are read and found too long for a message; one byte more is not read.
    let padded = |length: usize| format!("{}{}", content(""), " ".repeat(length - content("").len()));
    ada.data.call("POST", &messages, Some("application/json"), padded(262_144)).await.is_error(422, "invalid");
    ada.data.call("POST", &messages, Some("application/json"), padded(262_145)).await.is_error(413, "too_large");
    // Of one that claims to be longer nothing is waited for.
    for (length, more) in [(262_145_u64, ""), (1 << 40, ""), (1 << 40, "Expect: 100-continue\r\n")] {
        let mut raw = Raw::connect(&town.server.data()).await;
        let head = format!(
            "POST {}{messages} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             {more}Content-Length: {length}\r\n\r\n",
            raw.path(),
            raw.host(),
            ada.token
        );
        raw.write(head.as_bytes()).await.unwrap();
        assert_eq!(raw.status().await, Some(413), "{length} {more}");
    }
    town.is_unharmed().await;
}

#[tokio::test]
async fn ids_that_are_none_and_cursors_that_are_forged_are_refused() {
    let town = Town::new().await;
    let (ada, messages) = (&town.ada, town.messages());
    for n in 0..3 {
        ada.post(&town.elsewhere.0, json!({"content": n.to_string()})).await;
    }
    let theirs = ada.data.get(&format!("/channels/{}/messages?limit=1", town.elsewhere.0)).await.is(200);
    let foreign = theirs["nextPageState"].as_str().unwrap();
    let own = foreign.to_owned();
    let changed = |at: usize, to: &str| {
        let mut state = own.clone();
        state.replace_range(at..=at, if &own[at..=at] == to { "Q" } else { to });
        state
    };
    let malformed: Vec<String> = [
        "limit=0".to_owned(),
        "limit=-1".into(),
        "limit=ten".into(),
        "limit=".into(),
        "limit=1.5".into(),
        "limit=1&limit=2".into(),
        "before=first".into(),
        "before=".into(),
        format!("before={}", nobodys_id()),
        "after=7".into(),
        "around=%00".into(),
        format!("before={0}&after={0}", town.message),
        format!("before={}&pageState={foreign}", town.message),
        format!("pageState={foreign}"),
        "pageState=AAAA".into(),
        "pageState=null".into(),
        "pageState=%F0%9F%98%80".into(),
        "pageState=%ff%fe".into(),
        format!("pageState={}", "A".repeat(35)),
        format!("pageState={}", "A".repeat(7_000)),
        format!("pageState={}", tokens::encode(r#"{"before":"0f8fad5b-d9cb-169f-a165-70867728950e"}"#)),
    ]
    .into_iter()
    .map(|query| format!("{messages}?{query}"))
    .chain((0..own.len()).map(|at| format!("/channels/{}/messages?pageState={}", town.elsewhere.0, changed(at, "A"))))
    .chain(["x", "1", "me", "%00", "..%2f..%2fhealth", "0f8fad5bd9cb469fa16570867728950e", "' OR '1'='1"].into_iter().flat_map(
        |id| {
            [format!("/channels/{id}/messages"), format!("/guilds/{id}/channels"), format!("/users/{id}")]
                .map(|path| path.replace(' ', "%20"))
        },
    ))
    .filter(|path| path != "/users/me")
    .collect();
    for path in malformed {
        ada.data.get(&path).await.is_error_of(&path, 400, "malformed");
    }
    // A good one among all these.
    ada.data.get(&format!("/channels/{}/messages?pageState={own}", town.elsewhere.0)).await.is(200);

    // Of ids that are some, those of nothing, of another kind and of others' things are not there.
    let id = nobodys_id();
    for (who, path) in [
        (ada, format!("/channels/{id}/messages")),
        (ada, format!("/channels/{}/messages", town.guild)),
        (ada, format!("/channels/{}/messages", town.message)),
        (ada, format!("/guilds/{id}/channels")),
        (ada, format!("/guilds/{}/channels", town.channel)),
        (ada, format!("/users/{}", town.guild)),
        (&town.eve, town.messages()),
        (&town.eve, format!("{}?around={}", town.messages(), town.message)),
        (&town.eve, format!("/guilds/{}/channels", town.guild)),
    ] {
        who.data.get(&path).await.is_error_of(&path, 404, "not_found");
    }
    for (path, body) in [
        (town.messages(), json!({"content": "hi"})),
        (format!("/guilds/{}/channels", town.guild), json!({"name": "mine"})),
        (format!("/channels/{id}/messages"), json!({"content": "hi"})),
        (format!("/guilds/{id}/channels"), json!({"name": "mine"})),
        (format!("/guilds/{id}/members"), json!({})),
    ] {
        town.eve.data.post(&path, body).await.is_error_of(&path, 404, "not_found");
    }
    for path in [format!("/guilds/{}/members/{}", town.guild, town.ada.id), format!("/guilds/{id}/members/{}", town.eve.id)] {
        town.eve.data.delete(&path).await.is_error_of(&path, 404, "not_found");
    }
    ada.data.delete(&format!("/guilds/{}/members/ada", town.guild)).await.is_error(400, "malformed");
    ada.data.delete(&format!("/guilds/{}/members/{}", town.guild, town.eve.id)).await.is_error(404, "not_found");
    assert_eq!(ada.history(&town.channel).await, town.stored.0);
    assert_eq!(town.server.events().len(), town.stored.1.len() + 3, "the three that were written here, and no more");
}
