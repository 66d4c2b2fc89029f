//! Where the network begins: accepts sockets, bounds what they may do, and hands requests to a router.
//!
//! Bare hyper rather than `axum::serve`, since the bounds need it: seats by address, the client's own address behind
//! proxies, slow heads, and an end that does not wait for ever. Bodies are bounded by the routers, which know how large
//! they may be.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, StatusCode, header},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiscord_core::{Code, Fault, http::ClientAddr};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    select,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use crate::{
    config::Config,
    exit::Refused,
    process,
    proxies::Proxies,
    sockets::{Full, Seat, Sockets},
};

/// The most lines of a request's head.
const HEADER_LINES: usize = 64;
/// The most bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;
/// The most bytes of a request's target.
const TARGET_BYTES: usize = 8 << 10;
/// How much hyper reads ahead on a connection.
const READ_AHEAD: usize = 64 << 10;
/// How many requests a connection may bring before it is to be opened anew.
const REQUESTS: usize = 10_000;
/// How long a peer may take no byte of what is written to it.
const STALLED: Duration = Duration::from_secs(30);
/// How long accepting pauses when the system has no room, so that it does not spin.
const PAUSE: Duration = Duration::from_millis(100);
/// Files that stay free for the database and the like when sockets are counted against the limit of open files.
const SPARE_FILES: u64 = 64;

/// What a socket may do.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most sockets at once.
    pub sockets: usize,
    /// The most sockets of an address.
    pub sockets_per_address: usize,
    /// The most requests under way at once, health checks not counted.
    pub requests: usize,
    /// How long a head may take, counted from the socket's opening or the last answer.
    pub head: Duration,
    /// How long requests under way may take to end after a stop.
    pub drain: Duration,
}

impl Limits {
    /// As configured, within what the system allows. Raises the limit of open files.
    pub fn of(config: &Config) -> Self {
        let files = process::raise_open_files()
            .map_or(usize::MAX, |files| usize::try_from(files.saturating_sub(SPARE_FILES).max(1)).unwrap_or(usize::MAX));
        if files < config.limit_sockets {
            tracing::warn!(sockets = files, "the limit of open files (ulimit -n) is below JISCORD_LIMIT_SOCKETS");
        }
        Self {
            sockets: config.limit_sockets.min(files),
            sockets_per_address: config.limit_sockets_per_address,
            requests: config.limit_requests,
            head: config.limit_head,
            drain: Duration::from_secs(10),
        }
    }
}

/// A listener with its bounds.
pub struct Edge {
    listener: TcpListener,
    proxies: Proxies,
    limits: Limits,
}

impl Edge {
    /// Listens on `address`. Refused, with the mend, where that is not possible.
    pub async fn bind(address: SocketAddr, proxies: Proxies, limits: Limits) -> Result<Self, Refused> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Refused::because(match error.kind() {
                io::ErrorKind::AddrInUse => {
                    format!("{address} is in use by another program; stop it, or set PORT to another port")
                }
                io::ErrorKind::PermissionDenied => {
                    format!("{address} may not be opened by this user; set PORT to one above 1023")
                }
                _ => format!("{address} cannot be listened on ({error}); set PORT and JISCORD_LISTEN"),
            })
        })?;
        Ok(Self { listener, proxies, limits })
    }

    /// Where it listens, with the port that was taken.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then lets requests under way end, for as long as the limits say. Sockets that were upgraded
    /// are no longer its concern: whoever took them ends them.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let router = router.layer(CatchPanicLayer::custom(|_| {
            tracing::error!("a handler panicked");
            refusal(Fault::new(Code::INTERNAL, "internal error"))
        }));
        let sockets = Sockets::new(self.limits.sockets, self.limits.sockets_per_address);
        let under_way = Arc::new(Semaphore::new(self.limits.requests.min(Semaphore::MAX_PERMITS)));
        let (tasks, end) = (TaskTracker::new(), CancellationToken::new());
        let mut paused = false;
        loop {
            let accepted = select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if !is_peers(&error) {
                        if !std::mem::replace(&mut paused, true) {
                            tracing::warn!(%error, "no room to accept sockets; pausing");
                        }
                        select! {
                            () = stop.cancelled() => break,
                            () = sleep(PAUSE) => {}
                        }
                    }
                    continue;
                }
            };
            paused = false;
            let peer = peer.ip().to_canonical();
            // A proxy's sockets are its clients', and counted for them when they say who they are.
            let behind_proxy = self.proxies.trusts(peer);
            match sockets.take((!behind_proxy).then_some(peer)) {
                Ok(seat) => {
                    let connection = Arc::new(Connection {
                        peer,
                        behind_proxy,
                        proxies: self.proxies.clone(),
                        requests: AtomicUsize::new(0),
                        sockets: sockets.clone(),
                        under_way: under_way.clone(),
                        _seat: seat,
                        client_seat: OnceLock::new(),
                    });
                    tasks.spawn(serve_socket(stream, connection, router.clone(), self.limits.head, stop.clone(), end.clone()));
                }
                Err(full) => turn_away(&stream, full),
            }
        }
        drop(self.listener);
        tasks.close();
        if timeout(self.limits.drain, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "requests under way did not end in time");
            end.cancel();
            tasks.wait().await;
        }
    }
}

/// Errors that concern the one socket, not the next.
fn is_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Says why and closes, without spending a task on it.
fn turn_away(stream: &TcpStream, full: Full) {
    let (status, fault) = match full {
        Full::Server => ("503 Service Unavailable", Fault::new(Code::BUSY, "the server has as many connections as it takes")),
        Full::Address => ("429 Too Many Requests", Fault::new(Code::RATE_LIMITED, "too many connections from this address")),
    };
    let body = json(&fault);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nretry-after: 10\r\nconnection: close\r\n\r\n"
    );
    // Whatever it asked is read away first, since closing over unread bytes may take the answer back.
    let _ = stream.try_read(&mut [0; 4096]);
    let _ = stream.try_write(&[head.as_bytes(), &body].concat());
}

/// A socket as the service of its requests sees it.
struct Connection {
    peer: IpAddr,
    behind_proxy: bool,
    proxies: Proxies,
    requests: AtomicUsize,
    sockets: Arc<Sockets>,
    /// Of all connections.
    under_way: Arc<Semaphore>,
    _seat: Seat,
    /// Behind a proxy, that of whoever has upgraded.
    client_seat: OnceLock<Seat>,
}

async fn serve_socket(
    stream: TcpStream,
    connection: Arc<Connection>,
    router: Router,
    head: Duration,
    stop: CancellationToken,
    end: CancellationToken,
) {
    let options = SockRef::from(&stream);
    let _ = options.set_tcp_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = options.set_tcp_user_timeout(Some(STALLED));

    let socket = Socket { stream, _connection: connection.clone() };
    let service = service_fn(move |request| {
        let (connection, router) = (connection.clone(), router.clone());
        async move { Ok::<_, Infallible>(connection.answer(request, router).await) }
    });
    // hyper's head timeout also bounds the silence before the first byte and between two requests.
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head);
    http.max_headers(HEADER_LINES).max_header_size(HEAD_BYTES).max_buf_size(READ_AHEAD);
    let mut serving = pin!(http.serve_connection(TokioIo::new(socket), service).with_upgrades());
    let served = select! {
        served = serving.as_mut() => served,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            select! {
                served = serving.as_mut() => served,
                () = end.cancelled() => return,
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

impl Connection {
    async fn answer(&self, request: Request<Incoming>, router: Router) -> Response<Body> {
        // A proxy before us might have believed the other one (RFC 9112, 3.2).
        if request.headers().get_all(header::HOST).iter().nth(1).is_some() {
            return and_close(refusal(Fault::new(Code::MALFORMED, "the header host came twice")));
        }
        let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        if target > TARGET_BYTES {
            let mut response = refusal(Fault::new(Code::TOO_LARGE, "the request's target is over 8 KiB"));
            *response.status_mut() = StatusCode::URI_TOO_LONG;
            return response;
        }
        let turn = self.under_way.try_acquire();
        if turn.is_err() && !request.uri().path().starts_with("/health") {
            return refusal(Fault::new(Code::BUSY, "too many requests at once").retry_after(Duration::from_secs(1)));
        }
        let client = self.proxies.client(self.peer, request.headers());
        let seat = if self.behind_proxy && request.headers().contains_key(header::UPGRADE) {
            match self.sockets.name(client) {
                Ok(seat) => Some(seat),
                Err(_) => return refusal(Fault::new(Code::RATE_LIMITED, "too many connections from this address")),
            }
        } else {
            None
        };
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ClientAddr(client));
        // Without what is behind the question mark: some clients put secrets there, though nobody reads them.
        let span = tracing::debug_span!("request", %client, method = %request.method(), path = request.uri().path());

        let Ok(response) = router.oneshot(request).instrument(span.clone()).await;
        span.in_scope(|| tracing::debug!(status = response.status().as_u16()));
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if let Some(seat) = seat.filter(|_| upgraded) {
            let _ = self.client_seat.set(seat);
        }
        // Whether a length stood beside the word chunked hyper does not tell. Who believed in it takes what follows for a part of
        // this request, so it is not taken for another one here.
        let last = chunked || self.requests.fetch_add(1, Ordering::Relaxed) + 1 >= REQUESTS;
        if last && !upgraded { and_close(response) } else { response }
    }
}

fn and_close(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn json(fault: &Fault) -> Vec<u8> {
    serde_json::to_vec(&fault.body()).unwrap_or_default()
}

/// A fault as an answer.
pub fn refusal(fault: Fault) -> Response<Body> {
    let mut response = Response::new(Body::from(json(&fault)));
    *response.status_mut() = StatusCode::from_u16(fault.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(wait) = fault.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    response
}

/// A stream that keeps its seats for as long as it is open, also when a WebSocket has taken it over.
struct Socket {
    stream: TcpStream,
    _connection: Arc<Connection>,
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
