//! What comes from outside, as functions that a fuzzer can call with any bytes. They panic where something does not hold.
//!
//! ```sh
//! cargo install cargo-fuzz                     # once; it needs nightly Rust
//! cargo +nightly fuzz run --features libfuzzer frames fuzz/corpus/frames jiscord-core/tests/golden/frames
//! ```
//!
//! The golden files are the corpora. `cargo test -p jiscord-fuzz` runs each function on them, and on what becomes of them by
//! some thousand changes, with any Rust.
#![expect(clippy::unwrap_used, reason = "a fuzz target panics where something does not hold")]

use std::{
    cell::RefCell,
    sync::{Arc, Once},
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use http_body_util::BodyExt;
use jiscord_api::{
    chat::Chat,
    http::{self, Settings},
    tokens::Jwt,
};
use jiscord_core::{
    ClientFrame, Event, Placed, UserId,
    backend::Identity,
    event::Publish,
    fault::Result,
    http::{CreateChannelBody, CreateGuildBody, CreateMessageBody, LoginBody, MessagePage, RegisterBody, UserRow},
    text::{Content, Device, Email, Name, Nonce, Password, TextError, Username},
    time::SystemClock,
};
use jiscord_store::{Store, memory::MemoryStore};
use serde::{Serialize, de::DeserializeOwned};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

/// Frames of both sides: what is read can be written, and is the same when it is read again.
pub fn frames(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(frame) = ClientFrame::read(text) {
        let again = ClientFrame::read(&frame.encode()).unwrap();
        assert_eq!(format!("{again:?}"), format!("{frame:?}"));
    }
    if let Ok(frame) = Placed::read(text) {
        assert_eq!(Placed::read(&frame.encode()).unwrap(), frame);
    }
}

/// HTTP bodies and the texts in them: what is read can be written, and a text that was made valid stays as it is.
pub fn bodies(data: &[u8]) {
    body::<RegisterBody>(data);
    body::<LoginBody>(data);
    body::<CreateMessageBody>(data);
    body::<CreateGuildBody>(data);
    body::<CreateChannelBody>(data);
    body::<MessagePage>(data);
    body::<UserRow>(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    stays(text, Username::new, Username::as_str);
    stays(text, Email::new, Email::as_str);
    stays(text, Name::new, Name::as_str);
    stays(text, Content::new, Content::as_str);
    stays(text, Nonce::new, Nonce::as_str);
    stays(text, Device::new, Device::as_str);
    let _ = Password::new(text);
}

fn body<T: DeserializeOwned + Serialize>(data: &[u8]) {
    if let Ok(body) = serde_json::from_slice::<T>(data) {
        let text = serde_json::to_vec(&body).unwrap();
        let again: T = serde_json::from_slice(&text).unwrap();
        assert_eq!(serde_json::to_vec(&again).unwrap(), text);
    }
}

fn stays<T>(text: &str, make: impl Fn(&str) -> Result<T, TextError>, read: impl Fn(&T) -> &str) {
    if let Ok(made) = make(text) {
        let again = make(read(&made)).unwrap_or_else(|error| panic!("{text:?} is valid, and {:?} is not: {error}", read(&made)));
        assert_eq!(read(&again), read(&made));
    }
}

/// Calls of data-service by a user: a line `<method> <path and query>`, then a body. The answer is never a defect of the server, and
/// an error has the form of one.
pub fn requests(data: &[u8]) {
    let (line, body) = data.iter().position(|byte| *byte == b'\n').map_or((data, &[][..]), |at| (&data[..at], &data[at + 1..]));
    let Some((method, target)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(' ')) else { return };
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return };
    SITE.with_borrow(|site| {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::AUTHORIZATION, format!("Bearer {}", site.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_vec()));
        // What is no target never gets here.
        let Ok(request) = request else { return };
        site.runtime.block_on(async {
            let answer = site.router.clone().oneshot(request).await.unwrap();
            let status = answer.status();
            assert!(!status.is_server_error(), "{status}");
            if status.is_client_error() && status != StatusCode::METHOD_NOT_ALLOWED {
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert!(error["error"].is_string() && error["code"].is_string(), "{status}: {error}");
            }
        });
    });
}

/// Tokens: only what was signed is good.
pub fn tokens(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    SITE.with_borrow(|site| {
        if site.jwt.verify(text).is_ok() {
            assert_eq!(text, site.token, "a token that nobody signed is good");
        }
    });
}

/// The one good token of [`tokens`] and [`requests`], as something to change.
pub fn token() -> String {
    SITE.with_borrow(|site| site.token.clone())
}

thread_local! {
    static SITE: RefCell<Site> = RefCell::new(Site::new());
}

struct Site {
    runtime: Runtime,
    router: Router,
    jwt: Arc<Jwt>,
    token: String,
}

impl Site {
    fn new() -> Self {
        static CRYPTO: Once = Once::new();
        // An error says that there is one already, which is as good.
        CRYPTO.call_once(|| {
            let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        });
        let jwt = Arc::new(Jwt::new(b"a secret of 32 bytes for fuzzing").unwrap());
        let user: UserId = "0f8fad5b-d9cb-469f-a165-70867728950e".parse().unwrap();
        let token = jwt.sign(&Identity::new(user, "ada")).unwrap();
        let store = Store::of(MemoryStore::new(Arc::new(SystemClock)));
        let mut settings = Settings::default();
        (settings.limits.caller.per_second, settings.limits.caller.burst) =
            (u32::MAX.try_into().unwrap(), u32::MAX.try_into().unwrap());
        let chat = Chat::new(store, jwt.clone(), Arc::new(Nobody)).with_limits(settings.limits.clone());
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        Self { runtime, router: http::data::router(chat, settings), jwt, token }
    }
}

/// Nobody listens.
struct Nobody;

#[async_trait]
impl Publish for Nobody {
    async fn publish(&self, _: &[Event]) -> Result<()> {
        Ok(())
    }

    async fn pass(&self, _: Event) -> Result<()> {
        Ok(())
    }
}
