//! The other services over real sockets: the same answers as in one process, and what it means when none comes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, serve::ListenerExt};
use jiscord_api::{
    Accounts,
    accounts::Logins,
    http::auth,
    remote::{RemoteBackend, RemoteUsers},
};
use jiscord_core::{
    ChannelId, Code, Fault, GuildId, UserId,
    backend::{Actor, Backend, Login, Sent, TokenVerifier},
    fault::Result,
    frame::SendMessage,
    model::Visibility,
    text::{Email, Username},
};
use jiscord_store::{Error, NewUser, Users};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::site::{Call, NOBODY, Reply, SERVICE, Site, passwords, settings};

/// Serves a router on loopback, and counts its connections.
async fn serve(router: Router) -> (String, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let listener = listener.tap_io(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, connections)
}

async fn backend(site: &Site) -> RemoteBackend {
    let (auth, data) = (serve(site.auth.clone()).await.0, serve(site.data.clone()).await.0);
    RemoteBackend::new(&auth, &data, SERVICE.as_bytes()).unwrap()
}

fn message(channel_id: ChannelId, content: &str, nonce: Option<&str>) -> SendMessage {
    SendMessage { channel_id, content: content.into(), nonce: nonce.map(Into::into), reply_to: None }
}

/// What both say, or the word and sentence with which they refuse.
fn told<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(fault) => format!("{}: {}", fault.code, fault.message),
    }
}

#[tokio::test]
async fn a_gateway_gets_the_same_answers_from_afar() {
    let site = Site::new();
    let remote = backend(&site).await;
    remote.ready().await.unwrap();
    let (ada, bea) = (site.user("Ada").await, site.user("Bea").await);
    let (guild, _) = site.guild(&ada, Visibility::Private).await;
    let nobody: UserId = NOBODY.parse().unwrap();

    for token in [&ada.token, &bea.token, "", " ", "forged", "a b", "é", "a\nb", &"x".repeat(5_000), &format!("{}x", ada.token)]
    {
        assert_eq!(told(remote.verify_token(token).await), told(site.chat.verify_token(token).await), "{token}");
    }
    for actor in [Actor::System, ada.actor(), bea.actor(), Actor::User(nobody)] {
        for user in [ada.id, nobody] {
            assert_eq!(told(remote.user(actor, user).await), told(site.chat.user(actor, user).await));
            assert_eq!(told(remote.memberships(actor, user).await), told(site.chat.memberships(actor, user).await));
        }
        // Only the system loads guilds; that another actor tries is no mistake of a configuration.
        for guild in [guild, NOBODY.parse::<GuildId>().unwrap()] {
            assert_eq!(told(remote.load_guild(actor, guild).await), told(site.chat.load_guild(actor, guild).await));
        }
    }
}

#[tokio::test]
async fn a_message_from_afar_is_stored_once_and_published_by_the_caller() {
    let site = Site::new();
    let remote = backend(&site).await;
    let (ada, bea) = (site.user("Ada").await, site.user("Bea").await);
    let (_, channel) = site.guild(&ada, Visibility::Private).await;

    let sent: Sent = remote.send_message(ada.actor(), message(channel, "hi", Some("n"))).await.unwrap();
    let stored = site.log().await.pop().unwrap();
    assert_eq!((&sent.events[..], sent.repeated), (&[stored][..], false));
    let here = site.chat.send_message(ada.actor(), message(channel, "hi", Some("n"))).await.unwrap();
    let again = remote.send_message(ada.actor(), message(channel, "hi", Some("n"))).await.unwrap();
    for repeat in [here, again] {
        assert_eq!((&repeat.message, &repeat.events, repeat.repeated), (&sent.message, &sent.events, true));
    }
    // Without a nonce each is a message of its own, and nobody is told of one.
    let first = remote.send_message(ada.actor(), message(channel, "hi", None)).await.unwrap();
    let second = remote.send_message(ada.actor(), message(channel, "hi", None)).await.unwrap();
    assert_ne!(first.message.message_id, second.message.message_id);
    assert!(!first.events[0].frame.contains("nonce"));
    assert_eq!(site.heard.take(), vec![], "publishing is the caller's part");

    let nowhere = NOBODY.parse().unwrap();
    for (actor, bad) in [
        (Actor::System, message(channel, "hi", None)),
        (bea.actor(), message(channel, "hi", None)),
        (ada.actor(), message(nowhere, "hi", None)),
        (ada.actor(), message(channel, " ", None)),
        (ada.actor(), message(channel, "hi", Some(""))),
        (ada.actor(), message(channel, "other", Some("n"))),
        (ada.actor(), SendMessage { reply_to: Some(NOBODY.parse().unwrap()), ..message(channel, "hi", None) }),
    ] {
        let want = told(site.chat.send_message(actor, bad.clone()).await);
        assert_eq!(told(remote.send_message(actor, bad).await), want);
    }
}

#[tokio::test]
async fn accounts_work_on_users_from_afar() {
    let site = Site::new();
    let (url, connections) = serve(site.data.clone()).await;
    let users = Arc::new(RemoteUsers::new(&url, SERVICE.as_bytes()).unwrap());
    users.ready().await.unwrap();
    let limits = settings().limits;
    let accounts = Arc::new(Accounts::new(users.clone(), passwords(&limits), site.jwt.clone(), &limits));
    let auth = auth::router(accounts, settings());
    let new = json!({ "username": "Ada", "email": "ada+b/c?d@example.com", "password": "correct horse" });
    let id = Call::new(&auth, "POST /register").json(&new).send().await.ok(201)["user_id"].clone();
    Call::new(&auth, "POST /register").json(&new).send().await.fails(409, "email_in_use");
    let login = Call::new(&auth, "POST /login").json(&new).send().await.ok(200);
    assert_eq!(login["user"], json!({ "user_id": id, "username": "Ada", "email": "ada+b/c?d@example.com" }));
    let me = Call::new(&auth, "GET /me").bearer(login["token"].as_str().unwrap()).send().await.ok(200);
    assert_eq!(me, login["user"]);
    let wrong = json!({ "email": "ada+b/c?d@example.com", "password": "wrong horse" });
    Call::new(&auth, "POST /login").json(&wrong).send().await.fails(401, "unauthorized");
    let nobody = json!({ "email": "nobody@example.com", "password": "wrong horse" });
    Call::new(&auth, "POST /login").json(&nobody).send().await.fails(401, "unauthorized");
    Call::new(&auth, "GET /health/ready").send().await.ok(200);

    let ada: UserId = serde_json::from_value(id).unwrap();
    let bea = site.user("Bea").await.id;
    let mut found = users.get_many(&[ada, NOBODY.parse().unwrap(), bea, ada]).await.unwrap();
    found.sort_by_key(|account| account.user.username.clone());
    let here = [Users::get(&*site.store, ada).await.unwrap().unwrap(), Users::get(&*site.store, bea).await.unwrap().unwrap()];
    assert!(found == here, "the hashes too: the one who verifies them is here");
    assert_eq!(connections.load(Ordering::Relaxed), 1, "one call after the other needs one connection");
}

#[tokio::test]
async fn logins_are_kept_from_afar() {
    let site = Site::new();
    let data = serve(site.data.clone()).await.0;
    let users = Arc::new(RemoteUsers::new(&data, SERVICE.as_bytes()).unwrap());
    let limits = settings().limits;
    let accounts = Accounts::new(users.clone(), passwords(&limits), site.jwt.clone(), &limits).with_logins(users.clone());
    let auth = auth::router(Arc::new(accounts), settings());
    let new = json!({ "username": "Ada", "email": "ada@example.com", "password": "correct horse", "remember": true });
    Call::new(&auth, "POST /register").json(&new).send().await.ok(201);
    let own = "http://127.0.0.1:3001";
    let cookie = |reply: &Reply| reply.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let asked = |route: &str, cookie: &str| Call::new(&auth, route).header("origin", own).header("cookie", cookie);

    let first = Call::new(&auth, "POST /login").json(&new).send().await;
    let second = asked("POST /refresh", &cookie(&first)).send().await;
    let token = second.json["token"].as_str().unwrap();
    let backend = RemoteBackend::new(&serve(auth.clone()).await.0, &data, SERVICE.as_bytes()).unwrap();
    // What a gateway is told is what data-service knows itself.
    let who = backend.verify_token(token).await.unwrap();
    assert_eq!(who, site.chat.verify_token(token).await.unwrap());
    assert_eq!(who.login.unwrap().id, site.jwt.verify(first.json["token"].as_str().unwrap()).unwrap().login.unwrap().id);

    assert_eq!(asked("POST /logout", &cookie(&second)).send().await.status, 204);
    assert_eq!(site.heard.take().iter().filter(|event| event.is_internal()).count(), 1, "data-service publishes it");
    Call::new(&auth, "GET /me").bearer(token).send().await.fails(401, "unauthorized");
    assert_eq!(backend.verify_token(token).await.unwrap_err().code, Code::UNAUTHORIZED);
    asked("POST /refresh", &cookie(&second)).send().await.fails(401, "unauthorized");
}

#[tokio::test]
async fn whether_a_login_has_ended_only_data_service_says() {
    let says = |revoked: bool| Says(200, "", json!({ "revoked": revoked }).to_string());
    for (name, script, want) in [
        ("it has", vec![says(true)], Ok(true)),
        ("it has not", vec![says(false)], Ok(false)),
        ("after a cut", vec![Cut, says(true)], Ok(true)),
        ("cut", vec![Cut], Err(Code::UNAVAILABLE)),
        ("silence", vec![Silence], Err(Code::UNAVAILABLE)),
        ("nonsense", vec![page(200)], Err(Code::UNAVAILABLE)),
        ("away", vec![error(503, "unavailable")], Err(Code::UNAVAILABLE)),
        ("our token is refused", vec![error(401, "unauthorized")], Err(Code::UNAVAILABLE)),
        ("another server", vec![page(404)], Err(Code::UNAVAILABLE)),
    ] {
        let server = Scripted::new(script).await;
        let time = if name == "silence" { SHORT } else { Duration::from_secs(60) };
        let users = RemoteUsers::new(&server.url, SERVICE.as_bytes()).unwrap().with_time(time);
        let login = Login::new(NOBODY.parse().unwrap(), 7);
        let said = users.is_login_revoked(NOBODY.parse().unwrap(), login).await;
        assert_eq!(said.map_err(|fault| fault.code), want, "{name}");
        let path = format!("GET /internal/users/{NOBODY}/revocations?id={NOBODY}&issued_at=7 HTTP/1.1\r\n");
        assert!(server.requests().iter().all(|request| request.starts_with(&path)), "{name}");
    }
}

/// What a server does with a request that it has read.
#[derive(Clone)]
enum Step {
    /// Closes the connection.
    Cut,
    /// Says nothing.
    Silence,
    /// Answers with a status, more heads, and a body.
    Says(u16, &'static str, String),
}
use Step::{Cut, Says, Silence};

/// A server that plays a script, a step a request; the last one goes on for ever.
struct Scripted {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn new(script: Vec<Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::default());
        let (script, seen) = (Arc::new(script), requests.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(Self::play(stream, script.clone(), seen.clone()));
            }
        });
        Self { url, requests }
    }

    async fn play(mut stream: TcpStream, script: Arc<Vec<Step>>, seen: Arc<Mutex<Vec<String>>>) {
        while let Some(request) = request(&mut stream).await {
            let n = {
                let mut seen = seen.lock().unwrap();
                seen.push(request);
                seen.len() - 1
            };
            match &script[n.min(script.len() - 1)] {
                Cut => return,
                Silence => std::future::pending().await,
                Says(status, heads, body) => {
                    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{heads}\r\n{body}", body.len());
                    // Who has heard enough hangs up.
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Both services.
    fn backend(&self, time: Duration) -> RemoteBackend {
        RemoteBackend::new(&self.url, &self.url, SERVICE.as_bytes()).unwrap().with_time(time)
    }
}

/// A whole request; none where the other side is gone.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    loop {
        let mut bytes = [0; 4096];
        let n = stream.read(&mut bytes).await.ok().filter(|n| *n > 0)?;
        text.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text);
            }
        }
    }
}

/// An error as ours are.
fn error(status: u16, code: &str) -> Step {
    Says(status, "retry-after: 3\r\n", json!({ "error": "a sentence", "code": code }).to_string())
}

fn page(status: u16) -> Step {
    Says(status, "content-type: text/html\r\n", "<h1>Something</h1>".into())
}

/// Somebody who is waited for in vain is waited for so long.
const SHORT: Duration = Duration::from_millis(1_500);

/// The address of a port where nobody listens and nobody else will, as long as the socket is kept.
fn refusing() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    (socket, url)
}

#[tokio::test]
async fn a_token_is_bad_only_when_auth_service_says_so() {
    let verified = Says(200, "", json!({ "sub": NOBODY, "username": "Ada" }).to_string());
    let redirect = Says(302, "location: http://127.0.0.1:9/\r\n", String::new());
    let huge = Says(200, "", format!("\"{}\"", "x".repeat(9 << 20)));
    for (name, script, want, asked) in [
        ("good", vec![verified.clone()], None, 1),
        ("good after a cut", vec![Cut, verified.clone()], None, 2),
        ("good after somebody in between", vec![page(502), verified.clone()], None, 2),
        ("bad", vec![error(401, "unauthorized")], Some(Code::UNAUTHORIZED), 1),
        ("too many", vec![error(429, "rate_limited")], Some(Code::RATE_LIMITED), 1),
        ("a defect", vec![error(500, "internal")], Some(Code::UNAVAILABLE), 1),
        ("away", vec![error(503, "unavailable")], Some(Code::UNAVAILABLE), 1),
        ("not there", vec![error(404, "not_found")], Some(Code::UNAVAILABLE), 1),
        ("not allowed", vec![error(403, "unauthorized")], Some(Code::UNAVAILABLE), 1),
        ("no such page", vec![page(404)], Some(Code::UNAVAILABLE), 1),
        ("elsewhere", vec![redirect], Some(Code::UNAVAILABLE), 1),
        ("somebody in between", vec![page(502)], Some(Code::UNAVAILABLE), 2),
        ("nonsense", vec![page(200)], Some(Code::UNAVAILABLE), 2),
        ("too much", vec![huge], Some(Code::UNAVAILABLE), 2),
        ("cut", vec![Cut], Some(Code::UNAVAILABLE), 2),
        ("silence", vec![Silence], Some(Code::UNAVAILABLE), 2),
    ] {
        let server = Scripted::new(script).await;
        // A script of silence takes all the time there is; the others take none.
        let time = if name == "silence" { SHORT } else { Duration::from_secs(60) };
        let outcome = server.backend(time).verify_token("a.b.c").await;
        assert_eq!(outcome.map(drop).map_err(|fault| fault.code).err(), want, "{name}");
        let requests = server.requests();
        assert_eq!(requests.len(), asked, "{name}");
        for request in requests {
            assert!(request.starts_with("POST /verify-token HTTP/1.1\r\n"), "{request}");
            assert!(request.contains("authorization: Bearer a.b.c\r\n") && !request.contains(SERVICE), "{request}");
        }
    }
    let (_socket, nobody) = refusing();
    let backend = RemoteBackend::new(&nobody, &nobody, SERVICE.as_bytes()).unwrap().with_time(SHORT);
    assert_eq!(backend.verify_token("a.b.c").await.unwrap_err().code, Code::UNAVAILABLE);
    assert_eq!(backend.ready().await.unwrap_err().code, Code::UNAVAILABLE);
}

fn sent() -> Step {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../jiscord-core/tests/golden/bodies/sent.json");
    Says(201, "", std::fs::read_to_string(path).unwrap())
}

#[tokio::test]
async fn a_message_whose_fate_is_unknown_is_sent_once_more_and_no_oftener() {
    let (away, unknown) = (Some(Code::UNAVAILABLE), Some(Code::OUTCOME_UNKNOWN));
    for (name, script, want, asked) in [
        ("stored", vec![sent()], None, 1),
        ("stored after a cut", vec![Cut, sent()], None, 2),
        ("stored after a database that did not answer", vec![error(503, "outcome_unknown"), sent()], None, 2),
        ("stored after somebody in between", vec![page(504), sent()], None, 2),
        ("cut", vec![Cut], unknown.clone(), 2),
        ("silence", vec![Silence], unknown.clone(), 2),
        ("nonsense", vec![page(201)], unknown.clone(), 2),
        ("a database that does not answer", vec![error(503, "outcome_unknown")], unknown.clone(), 2),
        // The first try may have stored it, whatever the second one finds.
        ("away after a cut", vec![Cut, error(503, "unavailable")], unknown.clone(), 2),
        ("not there after a cut", vec![Cut, error(404, "not_found")], unknown, 2),
        ("away", vec![error(503, "unavailable")], away.clone(), 1),
        ("full", vec![error(503, "busy")], Some(Code::BUSY), 1),
        ("a code from the future", vec![error(409, "too_blue")], serde_json::from_str("\"too_blue\"").ok(), 1),
        ("another message's nonce", vec![error(409, "nonce_reused")], Some(Code::NONCE_REUSED), 1),
        ("no right to", vec![error(403, "forbidden")], Some(Code::FORBIDDEN), 1),
        ("our token is refused", vec![error(401, "unauthorized")], away.clone(), 1),
        ("somebody else's refusal", vec![page(403)], away.clone(), 1),
        ("another server", vec![page(404)], away, 1),
    ] {
        for nonce in [Some("n"), None] {
            let server = Scripted::new(script.clone()).await;
            let time = if name == "silence" { SHORT } else { Duration::from_secs(60) };
            let user = NOBODY.parse().unwrap();
            let hi = message(NOBODY.parse().unwrap(), "hi", nonce);
            let outcome: Result<Sent> = server.backend(time).send_message(Actor::User(user), hi).await;
            assert_eq!(outcome.as_ref().err().map(|fault| &fault.code), want.as_ref(), "{name}");
            if let Err(Fault { code, retry_after, .. }) = outcome
                && asked == 1
                && ![Code::UNAVAILABLE, Code::OUTCOME_UNKNOWN].contains(&code)
            {
                assert_eq!(retry_after, Some(Duration::from_secs(3)), "{name}");
            }

            let requests = server.requests();
            assert_eq!(requests.len(), asked, "{name}");
            let first = &requests[0];
            assert!(requests.iter().all(|request| request == first), "{name}: the same each time, its key too");
            assert!(first.starts_with(&format!("POST /channels/{NOBODY}/messages HTTP/1.1\r\n")), "{first}");
            for head in
                [&format!("authorization: Service {SERVICE}"), &format!("x-user-id: {NOBODY}"), "x-jiscord-publish: caller"]
            {
                assert!(first.contains(&format!("\r\n{head}\r\n")), "{first}");
            }
            assert_eq!((first.contains("idempotency-key: "), first.contains("\"nonce\"")), (nonce.is_none(), nonce.is_some()));
        }
    }
    let (_socket, nobody) = refusing();
    let backend = RemoteBackend::new(&nobody, &nobody, SERVICE.as_bytes()).unwrap().with_time(SHORT);
    let hi = message(NOBODY.parse().unwrap(), "hi", None);
    let fault = backend.send_message(Actor::User(NOBODY.parse().unwrap()), hi).await.unwrap_err();
    assert_eq!(fault.code, Code::UNAVAILABLE, "known not to be sent");
    assert!(fault.retry_after.is_some());
}

#[tokio::test]
async fn a_user_is_created_once_whatever_happens() {
    let user = Says(201, "", json!({ "user_id": NOBODY, "username": "Ada", "email": "ada@example.com" }).to_string());
    let new = || NewUser {
        username: Username::new("Ada").unwrap(),
        email: Email::new("ada@example.com").unwrap(),
        password_hash: "hash-of-ada".into(),
    };
    type Is = fn(&Result<jiscord_store::Account, Error>) -> bool;
    for (name, script, is) in [
        (
            "created",
            vec![user],
            (|it| it.as_ref().is_ok_and(|account| account.password_hash.as_deref() == Some("hash-of-ada"))) as Is,
        ),
        ("taken", vec![error(409, "email_in_use")], |it| matches!(it, Err(Error::Taken("email")))),
        ("cut", vec![Cut], |it| matches!(it, Err(Error::Unknown(_)))),
        ("silence", vec![Silence], |it| matches!(it, Err(Error::Unknown(_)))),
        ("somebody in between", vec![page(502)], |it| matches!(it, Err(Error::Unknown(_)))),
        ("away", vec![error(503, "unavailable")], |it| matches!(it, Err(Error::Unavailable(_)))),
        ("full", vec![error(503, "busy")], |it| matches!(it, Err(Error::Busy))),
        ("no room", vec![error(503, "storage_full")], |it| matches!(it, Err(Error::Full(_)))),
        ("our token is refused", vec![error(401, "unauthorized")], |it| matches!(it, Err(Error::Unavailable(_)))),
        ("taken for a user", vec![error(403, "forbidden")], |it| matches!(it, Err(Error::Unavailable(_)))),
        ("another version", vec![error(422, "invalid")], |it| matches!(it, Err(Error::Internal(_)))),
    ] {
        let server = Scripted::new(script).await;
        let time = if name == "silence" { SHORT } else { Duration::from_secs(60) };
        let users = RemoteUsers::new(&server.url, SERVICE.as_bytes()).unwrap().with_time(time);
        let outcome = users.create(new()).await;
        assert!(is(&outcome), "{name}: {outcome:?}");
        assert_eq!(server.requests().len(), 1, "{name}");
        if let Err(error) = outcome {
            let text = format!("{error:?}");
            assert!(!text.contains(SERVICE) && !text.contains("hash-of-ada") && !text.contains("ada@"), "{text}");
        }
    }
}

#[tokio::test]
async fn what_fails_shows_no_secret_and_no_address() {
    let (_socket, nobody) = refusing();
    let nonsense = Scripted::new(vec![Says(200, "", json!({ "user_id": "hash-of-ada" }).to_string())]).await;
    for url in [&nobody, &nonsense.url] {
        let users = RemoteUsers::new(url, SERVICE.as_bytes()).unwrap().with_time(SHORT);
        let Err(error) = users.by_email(&Email::new("ada@example.com").unwrap()).await else { panic!("nobody is there") };
        let text = format!("{users:?} {error:?}");
        assert!(!text.contains(SERVICE) && !text.contains("hash-of-ada") && !text.contains("ada@"), "{text}");
        assert!(!text.contains("ada%40"), "{text}");
    }
}

/// What is written to a log while it is kept.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_service_token_that_is_not_known_is_told_to_the_operator_and_blamed_on_nobody() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    const OTHER: &str = "another-token-than-the-one-known-there";
    let site = Site::new();
    let (auth, data) = (serve(site.auth.clone()).await.0, serve(site.data.clone()).await.0);
    let remote = RemoteBackend::new(&auth, &data, OTHER.as_bytes()).unwrap();
    let ada = site.user("Ada").await;
    let (guild, channel) = site.guild(&ada, Visibility::Public).await;
    remote.verify_token(&ada.token).await.unwrap();
    assert_eq!(String::from_utf8(log.0.lock().unwrap().clone()).unwrap(), "");
    let refused = [
        remote.ready().await.err(),
        remote.user(ada.actor(), ada.id).await.err(),
        remote.memberships(ada.actor(), ada.id).await.err(),
        remote.load_guild(Actor::System, guild).await.err(),
        remote.send_message(ada.actor(), message(channel, "hi", None)).await.err(),
    ];
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), refused.len(), "{text}");
    let told = |line: &str| line.contains("ERROR") && line.contains("service token") && line.contains("data-service");
    assert!(text.lines().all(told), "{text}");
    assert!(!text.contains(OTHER) && !text.contains(SERVICE) && !text.contains(&ada.token), "{text}");
    for fault in refused {
        assert_eq!(fault.unwrap().code, Code::UNAVAILABLE);
    }
    // Its address is another service's.
    let astray = RemoteBackend::new(&auth, &auth, SERVICE.as_bytes()).unwrap();
    assert_eq!(astray.ready().await.unwrap_err().code, Code::UNAVAILABLE);
}
