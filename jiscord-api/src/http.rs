//! The HTTP routers of data-service and auth-service, to be mounted wherever the host likes.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, RequestPartsExt, Router,
    body::{Bytes, HttpBody},
    extract::{DefaultBodyLimit, FromRef, FromRequest, FromRequestParts, Request},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS},
        request::Parts,
    },
    middleware::map_response,
    response::{IntoResponse, Response},
};
use jiscord_core::{Code, Fault, http::ClientAddr, id::IdError, json};
use serde::de::DeserializeOwned;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    limits::{Limiter, Limits, network},
    tokens::ServiceToken,
};

/// One line of a route table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// The method, such as `GET`.
    pub method: &'static str,
    /// The path in axum's form, such as `/users/{user_id}`.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
}

/// Whether a route wants credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody may call.
    Open,
    /// 401 without credentials.
    Credentials,
    /// 401 without credentials, 403 with those of a user.
    Service,
}

/// Writes a route table, and the function that makes a router of it: what is not in the table does not exist. The last
/// column's handler is reached through the module's `guarded`, which asks for credentials where the table says so.
macro_rules! routes {
    ($vis:vis $app:ty; $($method:ident $path:literal $access:ident => $handler:path;)+) => {
        /// All routes of this router.
        pub const ROUTES: &[$crate::http::Route] = &[$($crate::http::Route {
            method: stringify!($method),
            path: $path,
            access: $crate::http::Access::$access,
        }),+];

        $vis fn routes(app: &$app) -> axum::Router<$app> {
            axum::Router::new()
                $(.route($path, guarded(
                    app,
                    $crate::http::Access::$access,
                    axum::routing::on(axum::routing::MethodFilter::$method, $handler),
                )))+
        }
    };
}

pub mod auth;
mod cookie;
mod cursor;
pub mod data;

/// How the routers behave.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Settings {
    /// Origins of web pages that may call, such as `http://localhost:5173`.
    pub web_origins: Vec<String>,
    /// By which data-service knows other services; none: it knows no other service.
    pub service_token: Option<ServiceToken>,
    /// Whether data-service believes user ids in calls without credentials. Only for a server that nobody else can reach.
    pub trust_user_header: bool,
    /// The numbers.
    pub limits: Limits,
}

impl Settings {
    fn lists_origin(&self, origin: &HeaderValue) -> bool {
        self.web_origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes())
    }
}

/// A fault on its way out.
struct Failed(Fault);

type Answer<T> = Result<T, Failed>;

impl<E: Into<Fault>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Self(fault) = self;
        let status = StatusCode::from_u16(fault.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            let because = chain(&fault);
            if fault.code == Code::INTERNAL {
                tracing::error!(because, "a request failed");
            } else {
                tracing::warn!(code = %fault.code, because, "a request was turned away");
            }
        }
        let mut response = (status, Json(fault.body())).into_response();
        let always = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        if let Some(wait) = fault.retry_after.or(always.then_some(Duration::ZERO)) {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What is behind a fault, for the log alone.
fn chain(fault: &Fault) -> String {
    let sources = std::iter::successors(std::error::Error::source(fault), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn malformed(text: impl Into<String>) -> Fault {
    Fault::new(Code::MALFORMED, text)
}

fn unauthorized() -> Fault {
    Fault::new(Code::UNAUTHORIZED, "credentials are missing")
}

/// A JSON body.
struct Body<T>(T);

impl<S, T> FromRequest<S> for Body<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
    Arc<Settings>: FromRef<S>,
{
    type Rejection = Failed;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        let json = is_json(request.headers());
        let bytes = read(request, state).await?;
        if !json {
            return Err(unsupported_media_type().into());
        }
        parse(&bytes).map(Self)
    }
}

/// A JSON body that may be left out.
struct MaybeBody<T>(T);

impl<S, T> FromRequest<S> for MaybeBody<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Default,
    Arc<Settings>: FromRef<S>,
{
    type Rejection = Failed;

    async fn from_request(request: Request, state: &S) -> Answer<Self> {
        let json = is_json(request.headers());
        let bytes = read(request, state).await?;
        match (bytes.is_empty(), json) {
            (true, _) => Ok(Self(T::default())),
            (false, true) => parse(&bytes).map(Self),
            (false, false) => Err(unsupported_media_type().into()),
        }
    }
}

async fn read<S>(request: Request, state: &S) -> Answer<Bytes>
where
    S: Send + Sync,
    Arc<Settings>: FromRef<S>,
{
    let settings = Arc::<Settings>::from_ref(state);
    let too_large = || Fault::new(Code::TOO_LARGE, "the body is too large");
    // Before the first byte of a body that says by itself that it is too large.
    if request.body().size_hint().lower() > settings.limits.body as u64 {
        return Err(too_large().into());
    }
    match tokio::time::timeout(settings.limits.body_time, Bytes::from_request(request, state)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_large().into()),
        Ok(Err(_)) => Err(malformed("the body could not be read").into()),
        Err(_) => Err(Fault::new(Code::TIMEOUT, "the body took too long to arrive").into()),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    let unlike = |error| malformed(format!("not the JSON that is wanted: {error}"));
    // Twice: a type skips unknown fields unseen, and reads arrays as well as objects.
    json::check(bytes).map_err(unlike)?;
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(malformed("the body must be a JSON object").into());
    }
    Ok(serde_json::from_slice(bytes).map_err(unlike)?)
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(given)) = headers.get(CONTENT_TYPE).map(HeaderValue::to_str) else { return false };
    given.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

fn unsupported_media_type() -> Fault {
    Fault::new(Code::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json")
}

/// The parameters of a path, in order.
struct Path<T>(T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send + 'static,
{
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let found = parts.extract::<axum::extract::Path<T>>().await;
        Ok(Self(found.map_err(|rejection| malformed(rejection.body_text()))?.0))
    }
}

/// The parameters behind the question mark.
struct Query<T>(T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let found = axum::extract::Query::try_from_uri(&parts.uri);
        Ok(Self(found.map_err(|rejection| malformed(rejection.body_text()))?.0))
    }
}

fn id<T: std::str::FromStr<Err = IdError>>(text: &str) -> Result<T, Fault> {
    text.parse().map_err(|error: IdError| malformed(error.to_string()))
}

/// How many rows are wanted: at least one, and no more than there may be.
fn limit(text: Option<&str>, default: usize, most: usize) -> Result<usize, Fault> {
    let Some(text) = text else { return Ok(default) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A number too long for us is above any limit.
    match digits.then(|| text.parse().unwrap_or(usize::MAX)) {
        None | Some(0) => Err(malformed("limit must be a number above 0")),
        Some(limit) => Ok(limit.min(most)),
    }
}

/// The header in which a service names the user it acts for.
pub(crate) const USER_ID: HeaderName = HeaderName::from_static("x-user-id");

/// The header by which a service says that it publishes by itself what its call causes: `caller`.
pub(crate) const PUBLISH: HeaderName = HeaderName::from_static("x-jiscord-publish");
/// The header by which a service makes a call safe to repeat where there is no nonce; nobody else hears of it.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A header that must not come twice.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Fault> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(malformed(format!("the header {name} came twice")));
    }
    let text = first.map(|value| value.to_str()).transpose();
    text.map_err(|_| malformed(format!("the header {name} is not readable")))
}

/// The credentials of an `Authorization` header: its scheme in lower case, and the rest.
fn authorization(headers: &HeaderMap) -> Result<Option<(String, &str)>, Fault> {
    let Some(text) = single(headers, &AUTHORIZATION)? else { return Ok(None) };
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    Ok(Some((scheme.to_ascii_lowercase(), rest.trim())))
}

/// Counts a call against its address, if that is known.
fn count_address(limiter: &Limiter, addr: Option<&ClientAddr>) -> Result<(), Fault> {
    addr.map_or(Ok(()), |ClientAddr(addr)| limiter.count(network(*addr)))
}

/// What all routers have around their routes.
fn finish<S>(routes: Router<S>, state: S) -> Router
where
    S: Clone + Send + Sync + 'static,
    Arc<Settings>: FromRef<S>,
{
    let settings = Arc::<Settings>::from_ref(&state);
    let origins = settings.clone();
    let mut headers = vec![AUTHORIZATION, CONTENT_TYPE];
    if settings.trust_user_header {
        headers.push(USER_ID);
    }
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| origins.lists_origin(origin)))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(headers)
        .expose_headers([RETRY_AFTER, HeaderName::from_static("x-next-cursor")])
        .max_age(Duration::from_secs(600));
    routes
        .fallback(|| async { Failed(Fault::new(Code::NOT_FOUND, "there is nothing at this path")) })
        .method_not_allowed_fallback(|| async { Failed(Fault::new(Code::METHOD_NOT_ALLOWED, "this path has no such method")) })
        .layer(DefaultBodyLimit::max(settings.limits.body))
        .layer(map_response(private))
        .layer(cors)
        .with_state(state)
}

/// Answers are for who asked: no cache keeps them, and no browser takes them for a page.
async fn private(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// How long a readiness check waits.
const READY_TIME: Duration = Duration::from_secs(2);

/// The answer of `/health` and `/health/ready`.
async fn health(ready: impl Future<Output = Result<(), Fault>>) -> Answer<Json<serde_json::Value>> {
    match tokio::time::timeout(READY_TIME, ready).await {
        Ok(Ok(())) => Ok(alive().await),
        Ok(Err(fault)) => Err(not_ready().because(fault).into()),
        Err(late) => Err(not_ready().because(late).into()),
    }
}

fn not_ready() -> Fault {
    Fault::new(Code::UNAVAILABLE, "what this server needs is away").retry_after(Duration::from_secs(1))
}

/// The answer of `/health/live`.
async fn alive() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "ok" }))
}
