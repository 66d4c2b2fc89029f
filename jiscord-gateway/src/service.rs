//! The gateway as a tower service over a hyper upgrade.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use jiscord_core::{Code, Fault, backend::Backend, http::is_own_origin};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tower::Service;

use crate::{
    bus::Bus,
    claims::{Claims, LocalClaims},
    connection,
    hub::Hub,
    settings::Settings,
};

/// A gateway: accepts WebSockets and tells them what happens. Clones are the same gateway; when the last one and all its
/// services are gone, it ends.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    hub: Arc<Hub>,
    connections: TaskTracker,
    /// Ends the connections.
    shutdown: CancellationToken,
    /// Ends the line.
    _line: DropGuard,
}

impl Gateway {
    /// Starts the only gateway of its users on the current tokio runtime.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new(backend: Arc<dyn Backend>, bus: Arc<dyn Bus>, settings: Settings) -> Self {
        let claims = Arc::new(LocalClaims::new(settings.limits.devices));
        Self::with_claims(backend, bus, claims, settings)
    }

    /// Starts one gateway of several, which share the places of their users' devices.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn with_claims(backend: Arc<dyn Backend>, bus: Arc<dyn Bus>, claims: Arc<dyn Claims>, settings: Settings) -> Self {
        let hub = Hub::new(backend, bus, claims, settings);
        let (line, connections, shutdown) = (CancellationToken::new(), TaskTracker::new(), CancellationToken::new());
        let run = line.clone().run_until_cancelled_owned(hub.clone().run());
        // Without its line a gateway tells nobody anything: however the line ends, the connections end with it.
        let end = shutdown.clone().drop_guard();
        tokio::spawn(async move {
            let _end = end;
            run.await
        });
        Self { inner: Arc::new(Inner { hub, connections, shutdown, _line: line.drop_guard() }) }
    }

    /// The service to mount where clients connect, such as `/ws`. It answers everything but a WebSocket upgrade with an error.
    pub fn service(&self) -> GatewayService {
        GatewayService { gateway: self.clone() }
    }

    /// Stops taking connections, lets commands under way finish, tells every client to come back (RECONNECT, then close 1001),
    /// publishes what waits for the bus, and returns when all is done, or after `patience`.
    pub async fn shutdown(&self, patience: Duration) {
        self.inner.shutdown.cancel();
        self.inner.connections.close();
        let _ = timeout(patience * 4 / 5, self.inner.connections.wait()).await;
        let _ = timeout(patience / 5, self.inner.hub.bus.flush()).await;
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.inner.connections.len()
    }

    fn accept<B>(&self, mut request: Request<B>) -> Result<Response<Full<Bytes>>, Fault> {
        upgrade_key(&request)?;
        let headers = request.headers();
        if let Some(origin) = headers.get(header::ORIGIN) {
            let own = host(request.uri(), headers);
            if !origin
                .to_str()
                .is_ok_and(|origin| is_own_origin(origin, own) || self.inner.hub.settings.origins.iter().any(|o| o == origin))
            {
                return Err(Fault::new(Code::FORBIDDEN, "this origin may not open a socket"));
            }
        }
        if self.inner.shutdown.is_cancelled() {
            let wait = Duration::from_secs(1);
            return Err(Fault::new(Code::UNAVAILABLE, "this server is going away").retry_after(wait));
        }
        let (upgraded, response) = upgrade(&mut request)?;
        let (hub, shutdown) = (self.inner.hub.clone(), self.inner.shutdown.clone());
        self.inner.connections.spawn(async move {
            if let Ok(io) = upgraded.await {
                connection::serve(Box::new(TokioIo::new(io)), hub, shutdown).await;
            }
        });
        Ok(response)
    }
}

/// What a request becomes that asks for a WebSocket, and the answer to it (RFC 6455, 4.2).
pub(crate) fn upgrade<B>(request: &mut Request<B>) -> Result<(OnUpgrade, Response<Full<Bytes>>), Fault> {
    let accept = derive_accept_key(upgrade_key(request)?);
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept)
        .body(Full::default())
        .unwrap_or_default();
    Ok((hyper::upgrade::on(request), response))
}

/// The key of a request that asks for a WebSocket (RFC 6455, 4.2.1).
fn upgrade_key<B>(request: &Request<B>) -> Result<&[u8], Fault> {
    let headers = request.headers();
    let has = |name: header::HeaderName, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    let wanted = || Fault::new(Code::MALFORMED, "this is a WebSocket endpoint: send an upgrade, version 13");
    if request.method() != Method::GET
        || request.version() != Version::HTTP_11
        || !has(header::CONNECTION, "upgrade")
        || !has(header::UPGRADE, "websocket")
        || !has(header::SEC_WEBSOCKET_VERSION, "13")
    {
        return Err(wanted());
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(wanted)?;
    // 16 bytes in base64.
    if key.len() != 24 { Err(wanted()) } else { Ok(key.as_bytes()) }
}

fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    headers.get(header::HOST).and_then(|host| host.to_str().ok()).or_else(|| uri.authority().map(|authority| authority.as_str()))
}

/// What [`Gateway::service`] returns.
#[derive(Clone)]
pub struct GatewayService {
    gateway: Gateway,
}

impl<B> Service<Request<B>> for GatewayService {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.gateway.accept(request).unwrap_or_else(|fault| refuse(&fault))))
    }
}

pub(crate) fn refuse(fault: &Fault) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(serde_json::to_vec(&fault.body()).unwrap_or_default()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, const { header::HeaderValue::from_static("application/json") });
    if let Some(wait) = fault.retry_after {
        headers.insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
    }
    if fault.code == Code::MALFORMED {
        // RFC 9110, 15.5.22, and RFC 6455, 4.4.
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, const { header::HeaderValue::from_static("websocket") });
        headers.insert(header::SEC_WEBSOCKET_VERSION, const { header::HeaderValue::from_static("13") });
    } else {
        *response.status_mut() = StatusCode::from_u16(fault.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    }
    response
}
