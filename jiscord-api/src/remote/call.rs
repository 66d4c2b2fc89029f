//! One call of another service: its tries, its time, and what came of it.

use std::{fmt, time::Duration};

use jiscord_core::{Code, Fault, UserId, backend::Actor, fault::ErrorBody, fault::Result};
use rand::Rng;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderValue, RETRY_AFTER},
    redirect,
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    http::USER_ID,
    tokens::{MIN_SECRET, SecretError},
};

/// How long a call may take, all its tries together, unless set. A gateway gives a command 5 seconds, and what is known of it
/// is to be said before they are over.
pub const TIME: Duration = Duration::from_millis(4_500);
/// How long one connection may take to be there.
const CONNECT: Duration = Duration::from_secs(1);
/// A connection without work is closed after this, before the other side gives it up: its servers wait 10 seconds for a head.
const IDLE: Duration = Duration::from_secs(5);
const IDLE_CONNECTIONS: usize = 64;
/// The most that is read of an answer. The guilds of a user and the channels of a guild are far below.
const MAX_BODY: usize = 8 << 20;
/// No service asks for more patience than this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a service cannot be called as it is configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The named service's address cannot be read. What was given is not repeated, since it may have a password in it.
    #[error("not an address of {0}: http://host:port is wanted, without user, password, query or fragment")]
    Address(&'static str),
    /// The named service's address is https, which this build does not speak.
    #[error("no https to {0} in this build: enable the feature `rustls` of jiscord-api, or give an http address")]
    NoTls(&'static str),
    /// Anybody could guess the service token.
    #[error("the service token is no good: {0}")]
    ShortToken(#[source] SecretError),
    /// The service token cannot be sent in a header.
    #[error("the service token may only have ASCII letters, digits and punctuation, such as `openssl rand -hex 32` prints")]
    UnsendableToken,
    /// The HTTP client cannot be made.
    #[error("HTTP calls cannot be set up")]
    Client(#[source] Source),
}

/// Whether a call may be made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It changes nothing.
    Read,
    /// It has a nonce: done twice is done once.
    Repeatable,
    /// It may not.
    Once,
}

/// What became of one try.
pub(super) enum Tried<T> {
    Done(T),
    /// The service said no, so it knows.
    Refused(Fault),
    /// There was no connection: it cannot have come there.
    NotSent(Source),
    /// It may have come there.
    Unknown(Source),
}

/// A service, and how it is called. Connections are pooled.
#[derive(Clone)]
pub(super) struct Service {
    name: &'static str,
    client: Client,
    base: Url,
    authorization: Option<HeaderValue>,
    time: Duration,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("base", &self.base.as_str()).field("time", &self.time).finish_non_exhaustive()
    }
}

impl Service {
    pub(super) fn new(name: &'static str, address: &str) -> Result<Self, SetupError> {
        let base = Url::parse(address).ok().filter(|url| {
            let plain =
                url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
            plain && url.has_host() && matches!(url.scheme(), "http" | "https")
        });
        let base = base.ok_or(SetupError::Address(name))?;
        if base.scheme() == "https" && cfg!(not(feature = "rustls")) {
            return Err(SetupError::NoTls(name));
        }
        let client = Client::builder()
            .user_agent(concat!("jiscord-api/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            // The service token goes nowhere but to the service.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build()
            .map_err(|error| SetupError::Client(error.into()))?;
        Ok(Self { name, client, base, authorization: None, time: TIME })
    }

    /// All calls bring the service token.
    pub(super) fn with_token(mut self, token: &[u8]) -> Result<Self, SetupError> {
        if token.len() < MIN_SECRET {
            return Err(SetupError::ShortToken(SecretError::Short));
        }
        self.authorization = Some(authorization("Service", token).ok_or(SetupError::UnsendableToken)?);
        Ok(self)
    }

    pub(super) fn with_time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// A request to be made for whom it is made.
    pub(super) fn request(&self, method: Method, path: &[&str], user: Option<UserId>) -> RequestBuilder {
        let mut url = self.base.clone();
        // Always there: the scheme is http.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.client.request(method, url);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        match user {
            Some(user) => request.header(USER_ID, user.to_string()),
            None => request,
        }
    }

    /// Makes a call. `refused` says what a status that is no success means, with the fault in its body if it has one.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        kind: Kind,
        request: impl Fn() -> RequestBuilder,
        refused: impl Fn(StatusCode, Option<Fault>) -> Fault,
    ) -> Result<T> {
        persist(self.time, kind, || self.once(request(), &refused)).await
    }

    async fn once<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        refused: impl Fn(StatusCode, Option<Fault>) -> Fault,
    ) -> Tried<T> {
        // Without their address: it may have a user's in it.
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Tried::NotSent(error.without_url().into()),
            Err(error) => return Tried::Unknown(error.without_url().into()),
        };
        let status = response.status();
        let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = match read(response).await {
            Ok(body) => body,
            Err(source) => return Tried::Unknown(source),
        };
        if status.is_success() {
            return serde_json::from_slice(&body).map_or_else(
                // Not in serde's words, which may quote a secret.
                |error| Tried::Unknown(format!("{}'s answer is not understood at byte {}", self.name, error.column()).into()),
                Tried::Done,
            );
        }
        let said = serde_json::from_slice::<ErrorBody>(&body).ok().map(|ErrorBody { error, code }| {
            let fault = Fault::new(code, error);
            match seconds {
                Some(seconds) => fault.retry_after(Duration::from_secs(seconds).min(MAX_RETRY_AFTER)),
                None => fault,
            }
        });
        match said {
            Some(fault) if fault.code == Code::OUTCOME_UNKNOWN => Tried::Unknown(fault.into()),
            // Somebody between us and the service, who knows as little as we do.
            None if status.is_server_error() => Tried::Unknown(format!("{} answers {status}", self.name).into()),
            said => Tried::Refused(refused(status, said)),
        }
    }

    /// What a refusal by data-service means to who asked for himself, or for nobody.
    pub(super) fn refusal(&self, user: Option<UserId>, status: StatusCode, said: Option<Fault>) -> Fault {
        match said {
            Some(fault) if fault.code == Code::UNAUTHORIZED => self.misfit(status),
            // A service may do everything, so it was not taken for one.
            Some(fault) if fault.code == Code::FORBIDDEN && user.is_none() => self.misfit(status),
            Some(fault) => fault,
            None => self.misfit(status),
        }
    }

    /// Somebody has to mend the configuration. Whoever asked can do nothing about it.
    pub(super) fn misfit(&self, status: StatusCode) -> Fault {
        let service = self.name;
        tracing::error!(%status, "{service} refuses this service: is its address right, and is the service token the same there?");
        away().because(format!("{service} answers {status}"))
    }
}

/// A value for the header `Authorization` that is not shown. `None` if it cannot be sent.
pub(super) fn authorization(scheme: &str, secret: &[u8]) -> Option<HeaderValue> {
    if secret.is_empty() || !secret.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let mut value = HeaderValue::from_bytes(&[scheme.as_bytes(), b" ", secret].concat()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whom a service acts for; `None`: nobody.
pub(super) fn acts_for(actor: Actor) -> Result<Option<UserId>> {
    match actor {
        Actor::User(user) => Ok(Some(user)),
        Actor::System => Ok(None),
        _ => Err(Fault::new(Code::UNSUPPORTED, "not supported by this server")),
    }
}

pub(super) fn away() -> Fault {
    Fault::new(Code::UNAVAILABLE, "a part of the server is away; nothing was done").retry_after(Duration::from_secs(1))
}

fn unknown() -> Fault {
    let text = "it may or may not be done; ask again with the same nonce";
    Fault::new(Code::OUTCOME_UNKNOWN, text).retry_after(Duration::from_secs(1))
}

async fn read(mut response: Response) -> Result<Vec<u8>, Source> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err("the answer is too large".into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Tries until something is known, at most for so long.
async fn persist<T, F>(time: Duration, kind: Kind, mut once: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Tried<T>>,
{
    let until = Instant::now() + time;
    let mut may_repeat = kind != Kind::Once;
    let mut waits = 0;
    // What is known of the last try says nothing about the first.
    let mut doubt = None;
    let settle = |doubt: Option<Source>, fault: Fault| match doubt {
        Some(doubt) if kind != Kind::Read => unknown().because(doubt),
        _ => fault,
    };
    loop {
        let now = Instant::now();
        // A try that may be repeated leaves time for it.
        let try_until = if may_repeat { now + (until - now) / 2 } else { until };
        match timeout_at(try_until, once()).await.unwrap_or_else(|late| Tried::Unknown(late.into())) {
            Tried::Done(answer) => return Ok(answer),
            Tried::Refused(fault) => return Err(settle(doubt, fault)),
            Tried::Unknown(source) if may_repeat => {
                may_repeat = false;
                doubt = Some(source);
            }
            Tried::Unknown(source) if kind == Kind::Read => return Err(away().because(source)),
            Tried::Unknown(source) => return Err(unknown().because(source)),
            Tried::NotSent(source) => {
                let wait = backoff(waits);
                waits += 1;
                if Instant::now() + wait >= until {
                    return Err(settle(doubt, away().because(source)));
                }
                sleep(wait).await;
            }
        }
    }
}

/// How long to wait before the next try: longer each time, up to half a second, and not the same for two.
fn backoff(waits: u32) -> Duration {
    let most = (20u64 << waits.min(5)).min(500);
    Duration::from_millis(rand::rng().random_range(most / 2..=most))
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::pending};

    use super::*;

    /// What one try of a script comes to.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Step {
        Done,
        Refused,
        NotSent,
        Cut,
        Silence,
    }
    use Step::{Cut, Done, NotSent, Refused, Silence};

    /// Plays a script, whose last step goes on for ever. What came of it, and how many tries there were.
    async fn play(kind: Kind, script: &[Step]) -> (Result<(), Code>, usize) {
        let tries = RefCell::new(0);
        let outcome = persist(TIME, kind, || async {
            let step = script[(*tries.borrow()).min(script.len() - 1)];
            *tries.borrow_mut() += 1;
            match step {
                Done => Tried::Done(()),
                Refused => Tried::Refused(Fault::new(Code::BUSY, "busy")),
                NotSent => Tried::NotSent("refused".into()),
                Cut => Tried::Unknown("cut".into()),
                Silence => pending().await,
            }
        });
        (outcome.await.map_err(|fault| fault.code), tries.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_tried_as_often_as_it_is_safe() {
        let (away, unknown, busy) = (Err(Code::UNAVAILABLE), Err(Code::OUTCOME_UNKNOWN), Err(Code::BUSY));
        for (script, read, repeatable, once) in [
            (&[Done][..], Ok(()), Ok(()), Ok(())),
            (&[Refused], busy.clone(), busy.clone(), busy.clone()),
            (&[NotSent, NotSent, NotSent, Done], Ok(()), Ok(()), Ok(())),
            (&[NotSent, Refused], busy.clone(), busy.clone(), busy.clone()),
            (&[NotSent], away.clone(), away.clone(), away.clone()),
            (&[Cut, Done], Ok(()), Ok(()), unknown.clone()),
            (&[Silence, Done], Ok(()), Ok(()), unknown.clone()),
            (&[Cut, NotSent, NotSent, Done], Ok(()), Ok(()), unknown.clone()),
            (&[NotSent, Cut, Done], Ok(()), Ok(()), unknown.clone()),
            // The first try may have done it, whatever the second one says.
            (&[Cut, Refused], busy, unknown.clone(), unknown.clone()),
            (&[Cut, NotSent], away.clone(), unknown.clone(), unknown.clone()),
            (&[Cut, Cut, Done], away.clone(), unknown.clone(), unknown.clone()),
            (&[Silence], away, unknown.clone(), unknown),
        ] {
            for (kind, want) in [(Kind::Read, read), (Kind::Repeatable, repeatable), (Kind::Once, once)] {
                let begun = Instant::now();
                let (outcome, tries) = play(kind, script).await;
                assert_eq!(outcome, want, "{kind:?} {script:?}");
                assert!(begun.elapsed() <= TIME, "{kind:?} {script:?}: {:?}", begun.elapsed());
                let arrived = (0..tries).filter(|n| script[(*n).min(script.len() - 1)] != NotSent).count();
                assert!(arrived <= if kind == Kind::Once { 1 } else { 2 }, "{kind:?} {script:?}: {tries} tries");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_there_is_asked_often_at_first_and_then_seldom() {
        let (_, tries) = play(Kind::Once, &[NotSent]).await;
        assert!((10..40).contains(&tries), "{tries}");
        assert!(backoff(0) <= Duration::from_millis(20));
        let later: Vec<_> = (0..100).map(|_| backoff(99).as_millis()).collect();
        assert!(later.iter().all(|wait| (250..=500).contains(wait)) && later.iter().any(|wait| *wait != later[0]));
    }

    #[test]
    fn an_address_says_what_it_is_and_nothing_is_repeated() {
        for good in ["http://localhost:3001", "http://localhost:3001/", "http://[::1]/api/data", "http://data"] {
            let url = Service::new("data-service", good).unwrap().request(Method::GET, &["users", "a/b?c"], None);
            let url = url.build().unwrap().url().to_string();
            assert!(url.starts_with(good) && url.ends_with("/users/a%2Fb%3Fc") && !url[7..].contains("//"), "{url}");
        }
        for bad in
            ["", "localhost:3001", "//x", "ftp://x", "http://", "http://ada:hunter2@x", "http://x?hunter2", "http://x#hunter2"]
        {
            let error = Service::new("data-service", bad).unwrap_err();
            assert!(matches!(error, SetupError::Address("data-service")), "{bad}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        let https = Service::new("data-service", "https://x");
        assert_eq!(matches!(https, Err(SetupError::NoTls(_))), cfg!(not(feature = "rustls")));
    }

    #[test]
    fn a_service_token_is_sent_and_never_shown() {
        let token = "a-token-that-only-these-tests-have";
        let service = Service::new("data-service", "http://x").unwrap().with_token(token.as_bytes()).unwrap();
        let request = service.request(Method::GET, &[], None);
        assert!(!format!("{service:?} {request:?} {:?}", service.authorization).contains("only-these"));
        assert_eq!(request.build().unwrap().headers()[AUTHORIZATION].to_str().unwrap(), format!("Service {token}"));
        for (bad, short) in
            [("hunter2", true), ("a token with spaces, which is long enough", false), ("\n".repeat(40).as_str(), false)]
        {
            let error = service.clone().with_token(bad.as_bytes()).unwrap_err();
            assert_eq!(matches!(error, SetupError::ShortToken(_)), short);
            assert!(!error.to_string().contains(bad));
        }
    }
}
