//! What goes wrong, and how it is said.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Body;
use jiscord_api::{
    Accounts, Chat,
    http::{self, auth, data},
};
use jiscord_core::{
    Event, EventId, Fault, Position, UserId,
    event::{EventLog, Logged, Publish},
    fault::{Code, Result},
    model::Visibility,
    text::Email,
};
use jiscord_store::{Account, Error, NewUser, Store, Users};
use serde_json::json;

use crate::site::{Call, Site, passwords, settings};

#[tokio::test]
async fn paths_and_methods_that_are_not_there_say_so() {
    let site = Site::new();
    for router in [&site.auth, &site.data] {
        for path in ["GET /", "GET /nowhere", "POST /health/", "GET /health/x", "GET /%00", "GET //health", "DELETE /Health"] {
            Call::new(router, path).send().await.fails(404, "not_found");
        }
        for path in ["POST /health", "DELETE /health/live"] {
            let reply = Call::new(router, path).send().await.fails(405, "method_not_allowed");
            assert_eq!(reply.header("allow"), Some("GET,HEAD"));
        }
        let head = Call::new(router, "HEAD /health").send().await;
        assert_eq!((head.status.as_u16(), head.bytes.len()), (200, 0));
    }
}

#[tokio::test]
async fn routers_may_be_mounted_anywhere() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    let app = axum::Router::new().nest("/api/auth", site.auth.clone()).nest("/api/data", site.data.clone());
    Call::new(&app, "GET /api/auth/me").by(&ada).send().await.ok(200);
    Call::new(&app, &format!("GET /api/data/users/{}", ada.id)).by(&ada).send().await.ok(200);
    for path in ["GET /api/auth/nowhere", "GET /api/data/nowhere", "GET /api/data/me"] {
        Call::new(&app, path).send().await.fails(404, "not_found");
    }
    Call::new(&app, "PUT /api/data/guilds").send().await.fails(405, "method_not_allowed");
    Call::new(&app, "GET /api/data/guilds").send().await.fails(401, "unauthorized");
}

#[tokio::test]
async fn answers_are_for_who_asked_alone() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    for call in [site.auth("GET /me").by(&ada), site.auth("GET /me"), site.data("GET /guilds").by(&ada), site.data("GET /x")] {
        let reply = call.send().await;
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    }
}

#[tokio::test(start_paused = true)]
async fn every_body_is_json_of_a_bounded_size() {
    let site = Site::new();
    let ada = site.user("Ada").await;
    let (guild, channel) = site.guild(&ada, Visibility::Public).await;
    let log = site.log().await;
    // The object and 127 arrays in it: a level too deep.
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(127), "]".repeat(127));
    for (router, routes) in [(&site.auth, auth::ROUTES), (&site.data, data::ROUTES)] {
        for route in routes.iter().filter(|route| route.method == "POST" && route.path != "/verify-token") {
            let path = route.path.replace("{guild_id}", &guild.to_string()).replace("{channel_id}", &channel.to_string());
            let call = || {
                let call = Call::new(router, &format!("POST {path}"));
                if path == "/users" { call.service() } else { call.by(&ada) }
            };
            for media in
                ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application", "json", "text/json"]
            {
                call().raw(media, "{}").send().await.fails(415, "unsupported_media_type");
            }
            call().body("{}").send().await.fails(415, "unsupported_media_type");
            call().raw("application/json", vec![b' '; 256 * 1024 + 1]).send().await.fails(413, "too_large");
            for text in [
                "{",
                "nonsense",
                "{} {}",
                "\u{feff}{}",
                "{'a':1}",
                "[]",
                "[\"hi\"]",
                "null",
                "\"x\"",
                "{\"x\":1e999}",
                "{\"x\":\"\\ud800\"}",
                "{\"x\":NaN}",
                "{\"x\":1,\"x\":1}",
                "{\"x\":{\"y\":1,\"\\u0079\":1}}",
                &deep,
            ] {
                call().raw("application/json", text.to_owned()).send().await.fails(400, "malformed");
            }
            call().raw("application/json", vec![0xff, 0xfe]).send().await.fails(400, "malformed");
            // A body that never ends is waited for only so long; the clock of this test runs ahead.
            let never = Body::from_stream(futures_util::stream::pending::<std::result::Result<Vec<u8>, Infallible>>());
            call().raw("application/json", never).send().await.fails(408, "timeout");
        }
    }
    assert_eq!(site.log().await, log);
    // Parameters of the media type and its case do not matter.
    for media in ["application/json; charset=utf-8", "Application/JSON"] {
        let body = json!({ "content": "hi" }).to_string();
        site.data(&format!("POST /channels/{channel}/messages")).by(&ada).raw(media, body).send().await.ok(201);
    }
    let padded = format!("{}{}", json!({ "content": "hi" }), " ".repeat(255 * 1024));
    site.data(&format!("POST /channels/{channel}/messages")).by(&ada).raw("application/json", padded).send().await.ok(201);
}

/// A store whose users and log are away, each in its own way.
struct Away(fn() -> Error);

#[async_trait::async_trait]
impl Users for Away {
    async fn create(&self, _: NewUser) -> Result<Account, Error> {
        Err(self.0())
    }

    async fn get_many(&self, _: &[UserId]) -> Result<Vec<Account>, Error> {
        Err(self.0())
    }

    async fn by_email(&self, _: &Email) -> Result<Option<Account>, Error> {
        Err(self.0())
    }
}

#[async_trait::async_trait]
impl EventLog for Away {
    fn epoch(&self) -> &str {
        "away"
    }

    async fn head(&self) -> Result<Position> {
        Err(self.0().into())
    }

    async fn floor(&self) -> Result<Position> {
        Err(self.0().into())
    }

    async fn append(&self, _: Vec<Event>) -> Result<()> {
        Err(self.0().into())
    }

    async fn read_after(&self, _: Position, _: usize) -> Result<Vec<Logged>> {
        Err(self.0().into())
    }

    async fn wait_past(&self, _: Position) {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_store_that_fails_is_told_by_a_word_and_nothing_of_its_inside() {
    const INSIDE: &str = "SELECT * FROM users at /var/lib/jiscord";
    let site = Site::new();
    let ada = site.user("Ada").await;
    for (error, status, code, retry) in [
        ((|| Error::Corrupt(INSIDE.into())) as fn() -> Error, 500, "internal", None),
        (|| Error::Unavailable(INSIDE.into()), 503, "unavailable", Some("1")),
        (|| Error::Unknown(INSIDE.into()), 503, "outcome_unknown", Some("1")),
        (|| Error::Full(INSIDE.into()), 503, "storage_full", Some("30")),
        (|| Error::Busy, 503, "busy", Some("1")),
        (|| Error::Unsupported("that"), 501, "unsupported", None),
    ] {
        let away = Arc::new(Away(error));
        let store = Store { users: away.clone(), events: away.clone(), ..Store::of(site.store.clone()) };
        let limits = settings().limits;
        let accounts = Arc::new(Accounts::new(away, passwords(&limits), site.jwt.clone(), &limits));
        let auth = http::auth::router(accounts, settings());
        let data = http::data::router(Chat::new(store, site.jwt.clone(), site.heard.clone()), settings());
        let credentials = json!({ "email": "ada@example.com", "password": "correct horse", "username": "Ada" });
        for call in [
            Call::new(&auth, "GET /me").by(&ada),
            Call::new(&auth, "POST /login").json(&credentials),
            Call::new(&auth, "POST /register").json(&credentials),
            Call::new(&data, &format!("GET /users/{}", ada.id)).by(&ada),
            Call::new(&data, "GET /users/email/ada@example.com").service(),
            Call::new(&data, "POST /guilds").by(&ada).json(json!({ "name": "Chess" })),
        ] {
            let reply = call.send().await.fails(status, code);
            assert_eq!(reply.header("retry-after"), retry);
            assert!(!String::from_utf8(reply.bytes).unwrap().contains("SELECT"));
        }
        for router in [&auth, &data] {
            for path in ["GET /health", "GET /health/ready"] {
                let reply = Call::new(router, path).send().await.fails(503, "unavailable");
                assert_eq!(reply.header("retry-after"), Some("1"));
                assert!(!String::from_utf8(reply.bytes).unwrap().contains("SELECT"));
            }
            Call::new(router, "GET /health/live").send().await.ok(200);
        }
    }
}

/// A bus that refuses, or never answers.
struct Silent {
    refuses: bool,
}

#[async_trait::async_trait]
impl Publish for Silent {
    async fn publish(&self, _: &[Event]) -> Result<()> {
        if self.refuses {
            return Err(Fault::new(Code::UNAVAILABLE, "the bus is away"));
        }
        std::future::pending().await
    }

    async fn pass(&self, event: Event) -> Result<()> {
        assert_ne!(event.id, EventId::NONE);
        self.publish(&[event]).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_is_away_loses_no_message_and_hides_no_removal() {
    let site = Site::new();
    let (ada, bea) = (site.user("Ada").await, site.user("Bea").await);
    let (guild, channel) = site.guild(&ada, Visibility::Public).await;
    for refuses in [true, false] {
        site.chat.join(bea.actor(), guild).await.unwrap();
        let chat = Chat::new(Store::of(site.store.clone()), site.jwt.clone(), Arc::new(Silent { refuses }));
        let data = http::data::router(chat, settings());
        let say = Call::new(&data, &format!("POST /channels/{channel}/messages")).by(&bea).json(json!({ "content": "hi" }));
        let row = say.send().await.ok(201);
        assert_eq!(site.log().await.last().unwrap().id.to_string(), row["message_id"]);
        // A right that was taken away holds once everybody was told; until then nobody claims so.
        let asked = tokio::time::Instant::now();
        let call = Call::new(&data, &format!("DELETE /guilds/{guild}/members/{}", bea.id)).by(&ada);
        call.send().await.fails(503, "outcome_unknown");
        assert_eq!(asked.elapsed() >= Duration::from_secs(5), !refuses);
        assert_eq!(&*site.log().await.last().unwrap().op, "MEMBER_REMOVE", "the change is stored, and will be told");
    }
}

/// A bus whose queue is full, until it is not.
#[derive(Default)]
struct Full(std::sync::atomic::AtomicBool);

#[async_trait::async_trait]
impl Publish for Full {
    async fn publish(&self, _: &[Event]) -> Result<()> {
        self.ready()
    }

    async fn pass(&self, _: Event) -> Result<()> {
        Ok(())
    }

    fn ready(&self) -> Result<()> {
        let full = Fault::new(Code::UNAVAILABLE, "the queue is full").retry_after(Duration::from_secs(7));
        if self.0.load(std::sync::atomic::Ordering::Relaxed) { Err(full) } else { Ok(()) }
    }
}

#[tokio::test]
async fn while_the_bus_takes_nothing_more_writes_are_refused_and_reads_go_on() {
    let site = Site::new();
    let (ada, bea) = (site.user("Ada").await, site.user("Bea").await);
    let (guild, channel) = site.guild(&ada, Visibility::Public).await;
    let bus = Arc::new(Full::default());
    let data = http::data::router(Chat::new(Store::of(site.store.clone()), site.jwt.clone(), bus.clone()), settings());
    let writes = || {
        [
            Call::new(&data, "POST /guilds").by(&ada).json(json!({ "name": "Chess" })),
            Call::new(&data, &format!("POST /guilds/{guild}/channels")).by(&ada).json(json!({ "name": "rules" })),
            Call::new(&data, &format!("POST /channels/{channel}/messages")).by(&ada).json(json!({ "content": "hi" })),
            Call::new(&data, &format!("POST /guilds/{guild}/members")).by(&bea),
            Call::new(&data, &format!("DELETE /guilds/{guild}/members/{}", bea.id)).by(&ada),
        ]
    };
    // All that has events: no route that writes is forgotten here.
    let routes = data::ROUTES.iter().filter(|route| route.method != "GET" && route.path != "/users");
    assert_eq!(routes.count(), writes().len());
    let log = site.log().await;
    bus.0.store(true, std::sync::atomic::Ordering::Relaxed);
    for call in writes() {
        let reply = call.send().await.fails(503, "unavailable");
        assert_eq!(reply.header("retry-after"), Some("7"));
    }
    assert_eq!(site.log().await, log, "nothing was stored");
    Call::new(&data, "GET /health/ready").send().await.fails(503, "unavailable");
    Call::new(&data, "GET /health/live").send().await.ok(200);
    for path in ["GET /guilds/me".to_owned(), format!("GET /channels/{channel}/messages"), format!("GET /users/{}", ada.id)] {
        Call::new(&data, &path).by(&ada).send().await.ok(200);
    }
    // A gateway publishes by itself, and asks its own bus.
    let send = Call::new(&data, &format!("POST /channels/{channel}/messages")).service().acting_for(ada.id);
    send.header("x-jiscord-publish", "caller").json(json!({ "content": "hi" })).send().await.ok(201);

    bus.0.store(false, std::sync::atomic::Ordering::Relaxed);
    for call in writes() {
        assert!(call.send().await.status.is_success());
    }
    Call::new(&data, "GET /health/ready").send().await.ok(200);
}

/// A bus that queues at once, and never gets rid of it.
struct Queues;

#[async_trait::async_trait]
impl Publish for Queues {
    async fn publish(&self, _: &[Event]) -> Result<()> {
        Ok(())
    }

    async fn pass(&self, _: Event) -> Result<()> {
        Ok(())
    }

    async fn flush(&self) {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_removal_waits_until_its_event_is_out() {
    let site = Site::new();
    let (ada, bea) = (site.user("Ada").await, site.user("Bea").await);
    let (guild, channel) = site.guild(&ada, Visibility::Public).await;
    let data = http::data::router(Chat::new(Store::of(site.store.clone()), site.jwt.clone(), Arc::new(Queues)), settings());
    let asked = tokio::time::Instant::now();
    Call::new(&data, &format!("POST /guilds/{guild}/members")).by(&bea).send().await.ok(201);
    let say = Call::new(&data, &format!("POST /channels/{channel}/messages")).by(&bea);
    say.json(json!({ "content": "hi" })).send().await.ok(201);
    assert_eq!(asked.elapsed(), Duration::ZERO, "the clock of this test stands unless somebody waits");
    let call = Call::new(&data, &format!("DELETE /guilds/{guild}/members/{}", bea.id)).by(&ada);
    call.send().await.fails(503, "outcome_unknown");
    assert!(asked.elapsed() >= Duration::from_secs(5));
}
