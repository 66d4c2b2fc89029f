//! A site in memory, and a client that speaks HTTP to its routers without a socket.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderName, Request, StatusCode, header::CONTENT_TYPE},
};
use http_body_util::BodyExt;
use jiscord_api::{
    Accounts, Chat, Jwt, Limits,
    http::{self, Settings},
    passwords::{Cost, Passwords},
    tokens::ServiceToken,
};
use jiscord_core::{
    Event, GuildId, Timestamp, UserId,
    backend::{Actor, Identity},
    event::{EventLog, Logged, Position, Publish},
    fault::Result,
    model::Visibility,
    text::{Email, Username},
    time::{Clock, SystemClock},
};
use jiscord_store::{NewUser, Store, Users, memory::MemoryStore};
use serde_json::Value;
use tower::ServiceExt;

pub(crate) const SECRET: &[u8] = b"a secret that only these tests have";
pub(crate) const SERVICE: &str = "a-token-that-only-these-tests-have";
pub(crate) const ORIGIN: &str = "http://localhost:5173";
/// An id that nobody has.
pub(crate) const NOBODY: &str = "0f8fad5b-d9cb-169f-a165-70867728950e";

/// A bus that writes down what it is given.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Vec<Event>>);

impl Heard {
    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[async_trait::async_trait]
impl Publish for Heard {
    async fn publish(&self, events: &[Event]) -> Result<()> {
        self.0.lock().unwrap().extend_from_slice(events);
        Ok(())
    }

    async fn pass(&self, event: Event) -> Result<()> {
        self.0.lock().unwrap().push(event);
        Ok(())
    }
}

/// A clock that stands where it is put.
pub(crate) struct Stopped(pub(crate) Mutex<u64>);

impl Clock for Stopped {
    fn now_micros(&self) -> u64 {
        *self.0.lock().unwrap()
    }
}

pub(crate) struct Site {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) jwt: Arc<Jwt>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) chat: Chat,
    pub(crate) auth: Router,
    pub(crate) data: Router,
}

pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) token: String,
}

impl User {
    pub(crate) fn actor(&self) -> Actor {
        Actor::User(self.id)
    }
}

/// A cheap hash: what it costs is nothing these tests are about.
pub(crate) fn passwords(limits: &Limits) -> Passwords {
    let mut cost = Cost::default();
    (cost.memory, cost.passes) = (8, 1);
    Passwords::new(cost, limits)
}

pub(crate) fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.web_origins = vec![ORIGIN.into()];
    // So many that no two callers of a test are taken for one.
    settings.limits.rate_keys = u32::MAX;
    settings.service_token = Some(ServiceToken::new(SERVICE.as_bytes()).unwrap());
    settings
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(settings())
    }

    pub(crate) fn trusting() -> Self {
        let mut settings = settings();
        settings.trust_user_header = true;
        Self::with(settings)
    }

    pub(crate) fn with(settings: Settings) -> Self {
        Self::at(Arc::new(SystemClock), settings)
    }

    /// With another clock.
    pub(crate) fn at(clock: Arc<dyn Clock>, settings: Settings) -> Self {
        let store = MemoryStore::new(clock.clone());
        let (jwt, heard) = (Arc::new(Jwt::new(SECRET).unwrap().with_clock(clock)), Arc::new(Heard::default()));
        let limits = &settings.limits;
        let accounts = Accounts::new(store.clone(), passwords(limits), jwt.clone(), limits);
        let chat = Chat::new(Store::of(store.clone()), jwt.clone(), heard.clone()).with_limits(limits.clone());
        let accounts = Arc::new(accounts.with_logins(Arc::new(chat.clone())));
        let auth = http::auth::router(accounts.clone(), settings.clone());
        let data = http::data::router(chat.clone(), settings);
        Self { store, heard, jwt, accounts, chat, auth, data }
    }

    /// A user made behind the API's back.
    pub(crate) async fn user(&self, name: &str) -> User {
        let email = Email::new(&format!("{name}@example.com")).unwrap();
        let new = NewUser { username: Username::new(name).unwrap(), email, password_hash: format!("hash of {name}") };
        let id = Users::create(&*self.store, new).await.unwrap().user.user_id;
        let token = self.jwt.sign(&Identity::new(id, name)).unwrap();
        User { id, token }
    }

    pub(crate) fn token(&self, user: &str, name: &str) -> String {
        self.jwt.sign(&Identity::new(user.parse().unwrap(), name)).unwrap()
    }

    /// A guild of this user's, with one channel.
    pub(crate) async fn guild(&self, owner: &User, visibility: Visibility) -> (GuildId, jiscord_core::ChannelId) {
        let guild = self.chat.create_guild(owner.actor(), "the guild", Some(visibility)).await.unwrap().guild_id;
        let channel = self.chat.create_channel(owner.actor(), guild, "general").await.unwrap().channel_id;
        self.heard.take();
        (guild, channel)
    }

    /// All events in the store.
    pub(crate) async fn log(&self) -> Vec<Event> {
        let logged: Vec<Logged> = self.store.read_after(Position(0), 10_000).await.unwrap();
        logged.into_iter().map(|logged| logged.event).collect()
    }

    pub(crate) fn auth(&self, line: &str) -> Call {
        Call::new(&self.auth, line)
    }

    pub(crate) fn data(&self, line: &str) -> Call {
        Call::new(&self.data, line)
    }
}

/// A request in the making.
#[must_use]
pub(crate) struct Call {
    router: Router,
    request: Request<Body>,
}

impl Call {
    /// `line` is a method and a path.
    pub(crate) fn new(router: &Router, line: &str) -> Self {
        let (method, path) = line.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:3001").body(Body::empty()).unwrap();
        Self { router: router.clone(), request }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request.headers_mut().append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.request.headers_mut().remove(name);
        self
    }

    pub(crate) fn from(mut self, addr: &str) -> Self {
        self.request.extensions_mut().insert(jiscord_core::http::ClientAddr(addr.parse().unwrap()));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn by(self, user: &User) -> Self {
        self.bearer(&user.token)
    }

    pub(crate) fn service(self) -> Self {
        self.header("authorization", &format!("Service {SERVICE}"))
    }

    pub(crate) fn acting_for(self, user: UserId) -> Self {
        self.header("x-user-id", &user.to_string())
    }

    pub(crate) fn json(self, body: impl serde::Serialize) -> Self {
        self.raw("application/json", serde_json::to_string(&body).unwrap())
    }

    pub(crate) fn raw(mut self, content_type: &str, body: impl Into<Body>) -> Self {
        *self.request.body_mut() = body.into();
        self.request.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Body>) -> Self {
        *self.request.body_mut() = body.into();
        self
    }

    pub(crate) async fn send(self) -> Reply {
        let (head, body) = self.router.oneshot(self.request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        let json = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        if !bytes.is_empty() {
            assert_eq!(head.headers[CONTENT_TYPE], "application/json");
        }
        Reply { status: head.status, headers: head.headers, bytes, json }
    }
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
    pub(crate) json: Value,
}

impl Reply {
    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.json);
        self.json
    }

    /// Checks that it is an error as all errors are: the status, and a body of a sentence and a word.
    #[track_caller]
    pub(crate) fn fails(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status.as_u16(), &self.json["code"]), (status, &Value::from(code)), "{}", self.json);
        let body = self.json.as_object().unwrap();
        assert!(body.len() == 2 && !body["error"].as_str().unwrap().is_empty(), "{}", self.json);
        self
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// Whether a JSON value is a time as the wire has it.
#[track_caller]
pub(crate) fn assert_time(value: &Value) {
    let text = value.as_str().unwrap();
    let time: Timestamp = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(time.to_string(), text);
}
