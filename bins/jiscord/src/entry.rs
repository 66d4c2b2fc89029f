//! In front of the three services: one address for the page, both APIs and the sockets. It decides nothing; whoever may do
//! what, and how often, is for the services to say.

use std::{error::Error, io::Write, iter::successors, pin::pin, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version,
        header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE},
    },
    middleware::map_response,
    response::Response,
    routing::any,
};
use http_body_util::{LengthLimitError, Limited};
use hyper::upgrade::{self, OnUpgrade};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use jiscord_bin_kit::{
    Config, Edge,
    config::{Services, TrustUserHeader},
    edge::{self, refusal},
    service::{self, GOODBYE},
};
use jiscord_core::{Code, Fault, fault::Result, http::ClientAddr};
use tokio::{
    io::{AsyncWriteExt, copy, split},
    select,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::timeout::TimeoutBody;

/// The all-in-one's port if none is set.
const PORT: u16 = 3000;
/// How long a service may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a service may take to begin its answer, and then between two parts of it.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long an unused connection is kept. Services close theirs after JISCORD_LIMIT_HEAD_MS, which is longer.
const IDLE: Duration = Duration::from_secs(5);
/// How often the other machine is asked whether it is still there, where nothing is said.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long a client may take to close its side of a socket that the gateway has closed.
const LINGER: Duration = Duration::from_secs(5);

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const USER_ID: HeaderName = HeaderName::from_static("x-user-id");
/// What belongs to one connection (RFC 9110, 7.6.1), beside what Connection names.
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Serves until the stop, then as long as sockets may take to be closed.
pub(crate) async fn serve(config: &Config, services: Services, stop: CancellationToken) -> anyhow::Result<()> {
    let edge = Edge::bind(config.address(PORT), config.trusted_proxies.clone(), edge::Limits::of(config)).await?;
    let url = format!("http://{}", service::reachable(edge.address()?));
    let (tunnels, cut) = (TaskTracker::new(), CancellationToken::new());
    let road = Road {
        client: client(),
        body_limit: config.limit_body_bytes,
        trust_user_header: config.trust_user_header != TrustUserHeader::No,
        tunnels: tunnels.clone(),
        cut: cut.clone(),
    };
    let Services { auth, data, gateway } = services;
    let _ = writeln!(std::io::stdout(), "Jiscord is at {url}\nIt stands in front of {auth}, {data} and {gateway}");

    let [auth, data, gateway] = [auth, data, gateway].map(|base| Upstream { base, road: road.clone() });
    let ready = {
        let all = [auth.clone(), data.clone(), gateway.clone()];
        move || {
            let [auth, data, gateway] = all.clone();
            async move { tokio::try_join!(auth.ready(), data.ready(), gateway.ready()).map(|_| ()) }
        }
    };
    let router = crate::page::router(&url)
        .merge(service::health(stop.clone(), ready))
        .nest("/api/auth", Router::new().fallback(pass).with_state(auth))
        .nest("/api/data", Router::new().fallback(pass_data).with_state(data))
        .route("/ws", any(open_socket).with_state(gateway))
        .layer(map_response(service::guard));

    let goodbye = async {
        stop.cancelled().await;
        tunnels.close();
        if timeout(GOODBYE, tunnels.wait()).await.is_err() {
            cut.cancel();
            tunnels.wait().await;
        }
    };
    tokio::join!(edge.serve(router, stop.clone()), goodbye);
    tracing::info!("stopped");
    Ok(())
}

fn client() -> Client<HttpConnector, Limited<Body>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(KEEPALIVE));
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(connector)
}

/// What all that is passed on goes by.
#[derive(Clone)]
struct Road {
    client: Client<HttpConnector, Limited<Body>>,
    body_limit: usize,
    trust_user_header: bool,
    tunnels: TaskTracker,
    cut: CancellationToken,
}

/// One of the services.
#[derive(Clone)]
struct Upstream {
    base: String,
    road: Road,
}

async fn pass(State(upstream): State<Upstream>, request: Request) -> Response {
    upstream.pass(request, None).await.unwrap_or_else(refusal)
}

/// What services ask each other is not for whoever comes from outside.
async fn pass_data(State(upstream): State<Upstream>, request: Request) -> Response {
    if request.uri().path().split('/').find(|part| !part.is_empty()) == Some("internal") {
        return service::nothing_here().await;
    }
    upstream.pass(request, None).await.unwrap_or_else(refusal)
}

async fn open_socket(State(upstream): State<Upstream>, mut request: Request) -> Response {
    let Some(protocol) = request.headers().get(UPGRADE).cloned() else {
        return upstream.pass(request, None).await.unwrap_or_else(refusal);
    };
    let client = upgrade::on(&mut request);
    let mut response = match upstream.pass(request, Some(protocol.clone())).await {
        Ok(response) => response,
        Err(fault) => return refusal(fault),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let gateway = upgrade::on(&mut response);
        say_upgrade(response.headers_mut(), protocol);
        let cut = upstream.road.cut;
        upstream.road.tunnels.spawn(async move {
            cut.run_until_cancelled(tunnel(client, gateway)).await;
        });
    }
    response
}

impl Upstream {
    /// The service's answer. `protocol` is what to upgrade to.
    async fn pass(&self, request: Request, protocol: Option<HeaderValue>) -> Result<Response> {
        let Road { client, body_limit, trust_user_header, .. } = &self.road;
        let (mut parts, body) = request.into_parts();
        let declared = parts.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if declared.is_some_and(|bytes: usize| bytes > *body_limit) {
            return Err(too_large());
        }
        let asked = parts.extensions.remove::<ClientAddr>();
        parts.extensions.clear();
        parts.uri = self.uri(parts.uri.path_and_query().map_or("/", |target| target.as_str()))?;
        parts.version = Version::HTTP_11;
        strip(&mut parts.headers);
        parts.headers.remove(FORWARDED_FOR);
        if let Some(address) = asked.and_then(|ClientAddr(address)| HeaderValue::try_from(address.to_string()).ok()) {
            parts.headers.insert(FORWARDED_FOR, address);
        }
        if !trust_user_header {
            parts.headers.remove(USER_ID);
        }
        if let Some(protocol) = protocol {
            say_upgrade(&mut parts.headers, protocol);
        }
        let method = parts.method.clone();
        let request = Request::from_parts(parts, Limited::new(body, *body_limit));
        let error = match timeout(DEADLINE, client.request(request)).await {
            Ok(Ok(response)) => return Ok(Self::answered(response)),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        if error.as_ref().is_some_and(is_too_large) {
            return Err(too_large());
        }
        tracing::warn!(service = self.base, because = error.as_ref().map(tracing::field::debug), "a service did not answer");
        Err(failed(&method, error.as_ref()))
    }

    fn answered(mut response: hyper::Response<hyper::body::Incoming>) -> Response {
        strip(response.headers_mut());
        response.map(|body| Body::new(TimeoutBody::new(DEADLINE, body)))
    }

    /// Whether it and all that it needs is there.
    async fn ready(&self) -> Result<()> {
        let mut request = Request::new(Limited::new(Body::empty(), 0));
        *request.uri_mut() = self.uri("/health/ready")?;
        let answer = self.road.client.request(request).await.map_err(|_| away())?;
        if answer.status().is_success() { Ok(()) } else { Err(away()) }
    }

    fn uri(&self, target: &str) -> Result<Uri> {
        format!("{}{target}", self.base).parse().map_err(|_| Fault::new(Code::NOT_FOUND, "there is nothing at this path"))
    }
}

/// What to tell who asked; no error: it took too long. A write that may have reached the service may have been done.
fn failed(method: &Method, error: Option<&legacy::Error>) -> Fault {
    if method.is_safe() || error.is_some_and(legacy::Error::is_connect) {
        return away();
    }
    Fault::new(Code::OUTCOME_UNKNOWN, "the service did not answer; it may have been done").retry_after(Duration::from_secs(1))
}

fn away() -> Fault {
    Fault::new(Code::UNAVAILABLE, "the service is away").retry_after(Duration::from_secs(1))
}

fn is_too_large(error: &legacy::Error) -> bool {
    successors(error.source(), |&error| error.source()).any(|error| error.is::<LengthLimitError>())
}

fn too_large() -> Fault {
    Fault::new(Code::TOO_LARGE, "the body is too large")
}

/// Takes away what was meant for this connection alone.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn say_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Carries bytes both ways. The gateway has the last word: what it still says after the client has ended is passed on, while a
/// client whose gateway has ended gets a moment to close.
async fn tunnel(client: OnUpgrade, gateway: OnUpgrade) {
    let (client, gateway) = match tokio::try_join!(client, gateway) {
        Ok((client, gateway)) => (TokioIo::new(client), TokioIo::new(gateway)),
        Err(error) => return tracing::debug!(%error, "a socket was not opened"),
    };
    let ((mut from_client, mut to_client), (mut from_gateway, mut to_gateway)) = (split(client), split(gateway));
    // Errors are ends like others: whoever is left hears of it by the end of the stream.
    let mut up = pin!(async {
        let _ = copy(&mut from_client, &mut to_gateway).await;
        let _ = to_gateway.shutdown().await;
    });
    let mut down = pin!(async {
        let _ = copy(&mut from_gateway, &mut to_client).await;
        let _ = to_client.shutdown().await;
    });
    select! {
        () = &mut up => down.await,
        () = &mut down => {
            let _ = timeout(LINGER, up).await;
        }
    }
}
