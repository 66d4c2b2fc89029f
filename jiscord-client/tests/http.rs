//! The HTTP API against a server that follows a script.

#![expect(clippy::unwrap_used, reason = "a test's helpers may panic like the test")]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    response::Response,
};
use jiscord_client::{
    Endpoints, Error, Http,
    core::{ChannelId, Code, GuildId, MessageId, UserId, model::Visibility},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const ADA: &str = "a00c0580-e748-11f1-8000-010000000000";
const GUILD: &str = "a13d3280-e748-11f1-8000-010000000000";
const CHANNEL: &str = "a1897dc0-e748-11f1-8000-010000000000";
const MESSAGE: &str = "a1d5c900-e748-11f1-8000-010000000000";
const AT: &str = "2026-11-23T14:17:36.400Z";

/// Method and path, credentials, body.
type Asked = (String, Option<String>, Value);

/// What the server was asked, and what it is to answer next.
#[derive(Clone, Default)]
struct Script {
    asked: Arc<Mutex<Vec<Asked>>>,
    answers: Arc<Mutex<VecDeque<Response>>>,
}

impl Script {
    async fn start() -> (Self, Http) {
        let script = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = Http::new(Endpoints::at(&format!("http://{}", listener.local_addr().unwrap())).unwrap()).unwrap();
        let app = Router::new().fallback(play).with_state(script.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (script, http)
    }

    fn answer(&self, status: u16, headers: &[(&str, &str)], body: impl Into<Body>) {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        self.answers.lock().unwrap().push_back(response.body(body.into()).unwrap());
    }

    fn answer_json(&self, status: u16, body: Value) {
        self.answer(status, &[("content-type", "application/json")], body.to_string());
    }

    /// What was asked since the last time.
    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// The only thing that was asked since the last time: method and path, and the body.
    fn last(&self) -> (String, Value) {
        let mut asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        let (line, _, body) = asked.remove(0);
        (line, body)
    }
}

async fn play(State(script): State<Script>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = to_bytes(body, 1 << 20).await.unwrap();
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    let token = parts.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    script.asked.lock().unwrap().push((format!("{} {}", parts.method, parts.uri), token, body));
    let answer = script.answers.lock().unwrap().pop_front();
    answer.expect("the script has no answer to this")
}

fn message() -> Value {
    json!({"message_id": MESSAGE, "channel_id": CHANNEL, "author_id": ADA, "content": "hi", "created_at": AT, "rev": 1})
}

fn guild() -> Value {
    json!({"guild_id": GUILD, "name": "Engines", "created_at": AT, "rev": 1})
}

fn channel() -> Value {
    json!({"channel_id": CHANNEL, "guild_id": GUILD, "name": "general", "created_at": AT, "rev": 1})
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

#[tokio::test]
async fn accounts() {
    let (script, http) = Script::start().await;
    script.answer_json(201, json!({"user_id": ADA, "username": "Ada"}));
    assert_eq!(http.register("Ada", "a@b.c", "password").await.unwrap().user_id, id::<UserId>(ADA));
    let (line, body) = script.last();
    assert_eq!(line, "POST /api/auth/register");
    assert_eq!(body, json!({"username": "Ada", "email": "a@b.c", "password": "password"}));

    script.answer_json(200, json!({"token": "hush", "user": {"user_id": ADA, "username": "Ada", "email": "a@b.c"}}));
    let login = http.login("a@b.c", "password").await.unwrap();
    assert_eq!((login.token.as_str(), login.user.email.as_deref()), ("hush", Some("a@b.c")));
    assert!(!format!("{login:?}").contains("hush"));
    assert_eq!(script.last(), ("POST /api/auth/login".into(), json!({"email": "a@b.c", "password": "password"})));

    let http = http.with_token(login.token);
    script.answer_json(200, json!({"user_id": ADA, "username": "Ada"}));
    http.me().await.unwrap();
    let [(line, token, _)] = &script.asked()[..] else { panic!("asked more than once") };
    assert_eq!((line.as_str(), token.as_deref()), ("GET /api/auth/me", Some("Bearer hush")));
    assert!(!format!("{http:?}").contains("hush"));

    script.answer_json(200, json!({"user_id": ADA, "username": "Ada"}));
    assert_eq!(http.user(id(ADA)).await.unwrap().username, "Ada");
    assert_eq!(script.last().0, format!("GET /api/data/users/{ADA}"));
}

#[tokio::test]
async fn guilds_and_channels() {
    let (script, http) = Script::start().await;
    script.answer_json(200, json!([guild()]));
    assert_eq!(http.guilds().await.unwrap()[0].name, "Engines");
    assert_eq!(script.last().0, "GET /api/data/guilds/me");

    script.answer_json(201, guild());
    http.create_guild("Engines").visibility(Visibility::Private).await.unwrap();
    assert_eq!(script.last(), ("POST /api/data/guilds".into(), json!({"name": "Engines", "visibility": "private"})));

    script.answer_json(201, json!({"guild_id": GUILD, "user_id": ADA, "joined_at": AT}));
    assert_eq!(http.join(id(GUILD)).await.unwrap().user_id, id::<UserId>(ADA));
    assert_eq!(script.last(), (format!("POST /api/data/guilds/{GUILD}/members"), json!({})));

    script.answer_json(200, json!({"user_id": ADA, "username": "Ada"}));
    script.answer(204, &[], "");
    http.leave(id(GUILD)).await.unwrap();
    assert_eq!(script.asked()[1].0, format!("DELETE /api/data/guilds/{GUILD}/members/{ADA}"));

    script.answer_json(200, json!([channel()]));
    assert_eq!(http.channels(id(GUILD)).await.unwrap()[0].channel_id, id::<ChannelId>(CHANNEL));
    assert_eq!(script.last().0, format!("GET /api/data/guilds/{GUILD}/channels"));

    script.answer_json(201, channel());
    http.create_channel(id(GUILD), "general").await.unwrap();
    assert_eq!(script.last(), (format!("POST /api/data/guilds/{GUILD}/channels"), json!({"name": "general"})));
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let (script, http) = Script::start().await;
    let next = [("x-next-cursor", "a b/c?&")];
    script.answer(200, &next, json!([guild()]).to_string());
    let page = http.discover().limit(1).await.unwrap();
    assert_eq!((page.items[0].guild_id, page.next.as_deref()), (id::<GuildId>(GUILD), Some("a b/c?&")));
    assert_eq!(script.last().0, "GET /api/data/guilds?limit=1");
    script.answer(200, &[], "[]");
    let page = http.discover().cursor(page.next.unwrap()).await.unwrap();
    assert_eq!((page.items.len(), page.next), (0, None));
    assert_eq!(script.last().0, "GET /api/data/guilds?cursor=a+b%2Fc%3F%26");

    let path = format!("GET /api/data/channels/{CHANNEL}/messages");
    script.answer_json(200, json!({"messages": [message()], "nextPageState": "1.x"}));
    let page = http.messages(id(CHANNEL)).await.unwrap();
    assert_eq!((page.items[0].content.as_str(), page.next.as_deref()), ("hi", Some("1.x")));
    assert_eq!(script.last().0, path);
    script.answer_json(200, json!({"messages": [], "nextPageState": null}));
    assert_eq!(http.messages(id(CHANNEL)).limit(2).page_state("1.x").await.unwrap().next, None);
    assert_eq!(script.last().0, format!("{path}?limit=2&pageState=1.x"));
    script.answer_json(200, json!({"messages": [], "nextPageState": null}));
    // A server takes one place at most, so the last one said holds.
    http.messages(id(CHANNEL)).before(id(MESSAGE)).around(id(MESSAGE)).after(id(MESSAGE)).await.unwrap();
    assert_eq!(script.last().0, format!("{path}?after={MESSAGE}"));
}

#[tokio::test]
async fn a_message_always_has_a_nonce() {
    let (script, http) = Script::start().await;
    script.answer_json(201, message());
    assert_eq!(http.send(id(CHANNEL), "hi").await.unwrap().message_id, id::<MessageId>(MESSAGE));
    let (line, body) = script.last();
    assert_eq!(line, format!("POST /api/data/channels/{CHANNEL}/messages"));
    assert!(body["nonce"].as_str().is_some_and(|nonce| nonce.len() >= 16));
    script.answer_json(201, message());
    http.send(id(CHANNEL), "hi").nonce("mine").reply_to(id(MESSAGE)).await.unwrap();
    assert_eq!(script.last().1, json!({"content": "hi", "nonce": "mine", "reply_to": MESSAGE}));
    assert!(matches!(http.send(id(CHANNEL), " ").await, Err(Error::Invalid(_))));
    assert!(matches!(http.send(id(CHANNEL), "x").nonce("n".repeat(65)).await, Err(Error::Invalid(_))));
    assert_eq!(script.asked(), []);
}

#[tokio::test]
async fn a_no_has_a_code_and_a_sentence() {
    let (script, http) = Script::start().await;
    for (status, body, code) in [
        (404, r#"{"error":"why","code":"not_found"}"#, Code::NOT_FOUND),
        (409, r#"{"error":"why","code":"email_in_use"}"#, Code::EMAIL_IN_USE),
        // A server of the first version has no codes.
        (403, r#"{"error":"why"}"#, Code::FORBIDDEN),
        (409, r#"{"error":"why"}"#, Code::CONFLICT),
        (500, r#"{"error":"why"}"#, Code::INTERNAL),
        (503, r#"{"error":"why"}"#, Code::UNAVAILABLE),
    ] {
        script.answer(status, &[], body);
        let Err(Error::Refused(refusal)) = http.me().await else { panic!("{status} {body}") };
        assert_eq!((refusal.code, refusal.message.as_str(), refusal.retry_after), (code, "why", None));
    }
    // Somebody else's page.
    script.answer(502, &[], "<html>");
    assert!(matches!(http.me().await, Err(Error::Refused(refusal)) if refusal.code == Code::UNAVAILABLE));
    script.answer_json(401, json!({"error": "Invalid credentials", "code": "unauthorized"}));
    let error = http.login("a@b.c", "password").await.unwrap_err();
    assert_eq!(error.to_string(), "unauthorized: Invalid credentials");
    assert!(matches!(error, Error::Unauthorized(_)));
    let wait = [("retry-after", "7")];
    script.answer(503, &wait, r#"{"error":"why","code":"busy"}"#);
    let Err(Error::Refused(refusal)) = http.me().await else { panic!("not refused") };
    assert_eq!((refusal.code, refusal.retry_after), (Code::BUSY, Some(Duration::from_secs(7))));
}

#[tokio::test]
async fn too_fast_is_asked_once_more() {
    let (script, http) = Script::start().await;
    let body = r#"{"error":"slow down","code":"rate_limited"}"#;
    script.answer(429, &[("retry-after", "0")], body);
    script.answer_json(201, message());
    http.send(id(CHANNEL), "hi").await.unwrap();
    let asked = script.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], asked[1], "the same nonce too");

    // Once, not for ever; and not where the wait is longer than the call may take, or unknown.
    script.answer(429, &[("retry-after", "0")], body);
    script.answer(429, &[("retry-after", "0")], body);
    assert!(matches!(http.me().await, Err(Error::Refused(refusal)) if refusal.code == Code::RATE_LIMITED));
    assert_eq!(script.asked().len(), 2);
    script.answer(429, &[("retry-after", "31")], body);
    let Err(Error::Refused(refusal)) = http.me().await else { panic!("not refused") };
    assert_eq!(refusal.retry_after, Some(Duration::from_secs(31)));
    script.answer(429, &[], body);
    assert!(matches!(http.me().await, Err(Error::Refused(_))));
    assert_eq!(script.asked().len(), 2);
}

#[tokio::test]
async fn a_lost_answer_is_no_failure_of_what_was_asked() {
    let (script, http) = Script::start().await;
    let unknown = json!({"error": "?", "code": "outcome_unknown"});
    script.answer_json(503, unknown.clone());
    let result = http.send(id(CHANNEL), "hi").nonce("mine").await;
    assert!(matches!(result, Err(Error::OutcomeUnknown { nonce: Some(nonce) }) if nonce == "mine"));
    script.answer(504, &[], "<html>");
    assert!(matches!(http.create_guild("Engines").await, Err(Error::OutcomeUnknown { nonce: None })));

    // A server that takes the request and hangs up.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = Http::new(Endpoints::at(&format!("http://{}", listener.local_addr().unwrap())).unwrap()).unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.readable().await.unwrap();
        }
    });
    assert!(matches!(http.send(id(CHANNEL), "hi").await, Err(Error::OutcomeUnknown { nonce: Some(_) })));
    assert!(matches!(http.create_channel(id(GUILD), "general").await, Err(Error::OutcomeUnknown { nonce: None })));
    assert!(matches!(http.me().await, Err(Error::Unreachable(_))));
}

#[tokio::test]
async fn nobody_there_means_nothing_done() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let http = Http::new(Endpoints::at(&format!("http://{address}")).unwrap()).unwrap();
    assert!(matches!(http.send(id(CHANNEL), "hi").await, Err(Error::Unreachable(_))));
    assert!(matches!(http.me().await, Err(Error::Unreachable(_))));
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_or_no_end_is_given_up() {
    let (script, http) = Script::start().await;
    for body in ["", "[]", "{}", "<html>", r#"{"user_id":"1","username":"Ada"}"#] {
        script.answer(200, &[], body);
        assert!(matches!(http.me().await, Err(Error::Protocol(_))), "{body}");
    }
    script.answer(200, &[], vec![b' '; 9 << 20]);
    assert!(matches!(http.me().await, Err(Error::Protocol(_))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Http::new(Endpoints::at(&format!("http://{}", listener.local_addr().unwrap())).unwrap()).unwrap();
    let silent = silent.with_timeout(Duration::from_millis(50));
    assert!(matches!(silent.me().await, Err(Error::Unreachable(_))));
    assert!(matches!(silent.join(id(GUILD)).await, Err(Error::OutcomeUnknown { nonce: None })));
}
