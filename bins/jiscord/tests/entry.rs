//! The program in front of the three services, which a test plays.
#![expect(clippy::unwrap_used, reason = "a test's helpers may fail as tests do")]

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Response},
    routing::{any, get},
};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role},
    },
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LIMIT: usize = 4096;

/// A service as a test plays it. It tells what it was asked.
struct Played {
    address: SocketAddr,
    ready: Arc<AtomicBool>,
    serving: JoinHandle<()>,
}

impl Played {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, ready) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(true)));
        let router = Router::new()
            .route("/health/ready", get(is_ready).with_state(ready.clone()))
            .route("/ws", any(socket))
            .route("/broken", any(broken))
            .fallback(tell);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, ready, serving }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn is_ready(State(ready): State<Arc<AtomicBool>>) -> StatusCode {
    if ready.load(Ordering::Relaxed) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// What was asked, as JSON, with headers that belong to the connection and one that does not.
async fn tell(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else { return StatusCode::BAD_REQUEST.into_response() };
    let lines = parts.headers.iter().map(|(name, value)| json!([name.as_str(), value.to_str().unwrap()]));
    let told = json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "headers": lines.collect::<Vec<_>>(),
        "body": body.len(),
    });
    let headers = [("connection", "x-mine"), ("x-mine", "1"), ("keep-alive", "timeout=5"), ("x-yours", "2")];
    let cookies = AppendHeaders([("set-cookie", "one=1; Path=/"), ("set-cookie", "two=2; Secure")]);
    (StatusCode::IM_A_TEAPOT, headers, cookies, told.to_string()).into_response()
}

/// Ends in the middle of the answer's head, as a service does that is killed.
async fn broken() -> Response {
    panic!("of the test");
}

/// Says everything back, and closes with 4011 at "bye". A page of another host is refused.
async fn socket(mut request: Request) -> Response {
    let headers: &HeaderMap = request.headers();
    let own = format!("http://{}", headers[header::HOST].to_str().unwrap());
    if headers.get(header::ORIGIN).is_some_and(|origin| *origin != *own) {
        return (StatusCode::FORBIDDEN, "this origin may not").into_response();
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else { return StatusCode::UPGRADE_REQUIRED.into_response() };
    let key = derive_accept_key(key.as_bytes());
    let forwarded = headers["x-forwarded-for"].to_str().unwrap().to_owned();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgrade.await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        socket.send(Message::text(forwarded)).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Text(text) if text == "bye" => {
                    let _ = socket.close(Some(CloseFrame { code: 4011.into(), reason: "too slow".into() })).await;
                }
                Message::Close(frame) => assert_eq!(frame.unwrap().code, 4000.into()),
                message => {
                    let _ = socket.send(message).await;
                }
            }
        }
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "websocket"), (header::SEC_WEBSOCKET_ACCEPT, key.as_str())];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// The program, in front of three of them.
struct Entry {
    child: Child,
    address: SocketAddr,
    auth: Played,
    data: Played,
    gateway: Played,
}

impl Entry {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    async fn with(settings: &[(&str, &str)]) -> Self {
        let (auth, data, gateway) = (Played::start().await, Played::start().await, Played::start().await);
        // No folder and no secret is set, and none is made: it runs where it may write nothing.
        let mut child = Command::new(env!("CARGO_BIN_EXE_jiscord"))
            .env_clear()
            .envs([("PORT", "0"), ("JISCORD_DATA_DIR", "/proc/none"), ("JISCORD_LIMIT_BODY_BYTES", "4096")])
            .envs([("AUTH_SERVICE_URL", auth.url()), ("DATA_SERVICE_URL", data.url()), ("GATEWAY_URL", gateway.url())])
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let line = spawn_blocking(|| BufReader::new(out).lines().next().unwrap().unwrap()).await.unwrap();
        let address = line.strip_prefix("Jiscord is at http://").unwrap().parse().unwrap();
        Self { child, address, auth, data, gateway }
    }

    /// The status, head and body of the answer to this method and path, with more headers and the body as `rest`.
    async fn ask(&self, head: &str, rest: &[u8]) -> (u16, String, Value) {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{head} HTTP/1.1\r\nhost: chat.example\r\nconnection: close, x-hop\r\n");
        let _ = socket.write_all(head.as_bytes()).await;
        let _ = socket.write_all(rest).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        (head[9..12].parse().unwrap(), head.to_lowercase(), serde_json::from_str(body).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (u16, String, Value) {
        self.ask(&format!("GET {path}"), b"\r\n").await
    }

    async fn open(&self, headers: &[(&'static str, &str)]) -> Result<WebSocketStream<TcpStream>, tungstenite::Error> {
        let mut request = format!("ws://{}/ws", self.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        Ok(timeout(PATIENCE, client_async(request, stream)).await.unwrap()?.0)
    }

    fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<Message> {
    timeout(PATIENCE, socket.next()).await.unwrap().and_then(Result::ok)
}

#[tokio::test]
async fn paths_lose_their_prefix_and_headers_what_is_the_connections() {
    let entry = Entry::start().await;
    let head = "POST /api/data/channels/1/messages?a=%20b&c";
    let rest = "x-forwarded-for: 203.0.113.9\r\nx-forwarded-for: 198.51.100.1\r\nx-hop: 1\r\nkeep-alive: 1\r\nte: trailers\r\n\
                x-user-id: 1\r\nauthorization: Bearer t\r\ncontent-length: 4\r\n\r\nbody";
    let (status, answer, told) = entry.ask(head, rest.as_bytes()).await;
    assert_eq!(status, 418, "{answer}");
    assert_eq!((&told["method"], &told["body"]), (&json!("POST"), &json!(4)));
    assert_eq!(told["target"], "/channels/1/messages?a=%20b&c");
    let mut headers = told["headers"].as_array().unwrap().clone();
    headers.sort_by_key(|line| line[0].as_str().unwrap().to_owned());
    let want = json!([
        ["authorization", "Bearer t"],
        ["content-length", "4"],
        ["host", "chat.example"],
        ["x-forwarded-for", "127.0.0.1"],
    ]);
    assert_eq!(Value::from(headers), want);
    assert!(answer.contains("x-yours: 2") && !answer.contains("x-mine") && !answer.contains("keep-alive"), "{answer}");

    let (_, _, told) = entry.get("/api/auth/me").await;
    assert_eq!(told["target"], "/me");
    let (status, answer, _) = entry.get("/").await;
    assert!(status == 200 && answer.contains("text/html"), "{answer}");
    assert_eq!(entry.get("/api/other").await.0, 404);
}

#[tokio::test]
async fn a_pages_cookie_goes_through_with_what_it_is_judged_by() {
    let entry = Entry::start().await;
    let rest = "cookie: jiscord_refresh=a; other=1\r\norigin: http://chat.example\r\nsec-fetch-site: same-origin\r\n\
                content-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let (_, answer, told) = entry.ask("POST /api/auth/refresh", rest.as_bytes()).await;
    assert_eq!(told["target"], "/refresh");
    let headers = told["headers"].as_array().unwrap();
    for line in [
        ["cookie", "jiscord_refresh=a; other=1"],
        ["origin", "http://chat.example"],
        ["host", "chat.example"],
        ["sec-fetch-site", "same-origin"],
        ["content-type", "application/json"],
    ] {
        assert!(headers.contains(&json!(line)), "{line:?} in {headers:?}");
    }
    let cookies: Vec<_> = answer.lines().filter(|line| line.starts_with("set-cookie: ")).collect();
    assert_eq!(cookies, ["set-cookie: one=1; path=/", "set-cookie: two=2; secure"]);
}

#[tokio::test]
async fn a_trusted_proxy_in_front_says_who_the_client_is() {
    let entry = Entry::with(&[("JISCORD_TRUSTED_PROXIES", "127.0.0.1"), ("JISCORD_TRUST_USER_HEADER", "true")]).await;
    let (_, _, told) = entry.ask("GET /api/auth/me", b"x-forwarded-for: 1.1.1.1, 203.0.113.9\r\nx-user-id: 7\r\n\r\n").await;
    let headers = told["headers"].as_array().unwrap();
    assert!(headers.contains(&json!(["x-forwarded-for", "203.0.113.9"])), "{headers:?}");
    assert!(headers.contains(&json!(["x-user-id", "7"])), "{headers:?}");
    let mut socket = entry.open(&[("x-forwarded-for", "203.0.113.9")]).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap(), Message::text("203.0.113.9"));
}

#[tokio::test]
async fn what_services_ask_each_other_is_not_passed_on() {
    let entry = Entry::start().await;
    for path in ["/api/data/internal", "/api/data/internal/guilds/1", "/api/data//internal/x", "/api/data/internal?a"] {
        let (status, _, body) = entry.get(path).await;
        assert_eq!((status, &body["code"]), (404, &json!("not_found")), "{path}");
    }
    assert_eq!(entry.get("/api/data/internals").await.0, 418);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let entry = Entry::start().await;
    let chunked = |bytes: usize| format!("transfer-encoding: chunked\r\n\r\n{bytes:x}\r\n{}\r\n0\r\n\r\n", "a".repeat(bytes));
    let whole = |bytes: usize| format!("content-length: {bytes}\r\n\r\n{}", "a".repeat(bytes));
    for fits in [chunked(LIMIT), whole(LIMIT)] {
        let (status, _, told) = entry.ask("POST /api/data/guilds", fits.as_bytes()).await;
        assert_eq!((status, &told["body"]), (418, &json!(LIMIT)));
    }
    for over in [chunked(LIMIT + 1), whole(LIMIT + 1), format!("content-length: {}\r\n\r\n", 1_u64 << 40)] {
        let (status, _, body) = entry.ask("POST /api/data/guilds", over.as_bytes()).await;
        assert_eq!((status, &body["code"]), (413, &json!("too_large")));
    }
}

#[tokio::test]
async fn a_service_that_is_away_is_503_and_readiness_follows() {
    let entry = Entry::start().await;
    assert_eq!(entry.get("/health/ready").await.0, 200);
    for service in [&entry.auth, &entry.data, &entry.gateway] {
        service.ready.store(false, Ordering::Relaxed);
        let (status, head, _) = entry.get("/health/ready").await;
        assert!(status == 503 && head.contains("retry-after: "), "{head}");
        assert_eq!(entry.get("/health/live").await.0, 200);
        service.ready.store(true, Ordering::Relaxed);
        assert_eq!(entry.get("/health").await.0, 200);
    }
    // Reached, and gone before the answer: what was to be written may have been.
    for (method, code) in [("GET", "unavailable"), ("POST", "outcome_unknown")] {
        let (status, head, body) = entry.ask(&format!("{method} /api/data/broken"), b"content-length: 0\r\n\r\n").await;
        assert_eq!((status, body["code"].as_str()), (503, Some(code)));
        assert!(head.contains("retry-after: "), "{head}");
    }
    for (service, head) in
        [(&entry.data, "POST /api/data/guilds"), (&entry.auth, "POST /api/auth/login"), (&entry.gateway, "GET /ws")]
    {
        service.serving.abort();
        while TcpStream::connect(service.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let (status, answer, body) = entry.ask(head, b"content-length: 0\r\n\r\n").await;
        assert_eq!((status, &body["code"]), (503, &json!("unavailable")), "{head}");
        assert!(answer.contains("retry-after: 1") && answer.contains("application/json"), "{answer}");
    }
    assert_eq!(entry.get("/health/ready").await.0, 503);
}

#[tokio::test]
async fn a_socket_goes_through_with_its_close_code_either_way() {
    let entry = Entry::start().await;
    let own = format!("http://{}", entry.address);
    let mut socket = entry.open(&[("origin", &own), ("x-forwarded-for", "203.0.113.9")]).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap(), Message::text("127.0.0.1"));
    for message in [Message::text("hello"), Message::binary(vec![7; 100_000]), Message::Ping("p".into())] {
        socket.send(message.clone()).await.unwrap();
        let heard = next(&mut socket).await.unwrap();
        assert!(heard == message || heard == Message::Pong("p".into()), "{heard:?}");
    }
    let mut other = entry.open(&[]).await.unwrap();
    next(&mut other).await.unwrap();

    socket.send(Message::text("bye")).await.unwrap();
    // The answer to the ping may still come before it.
    let closed = loop {
        if let Message::Close(frame) = next(&mut socket).await.unwrap() {
            break frame.unwrap();
        }
    };
    assert_eq!(closed.code, 4011.into());
    assert_eq!(next(&mut socket).await, None);

    other.close(Some(CloseFrame { code: 4000.into(), reason: "".into() })).await.unwrap();
    assert!(matches!(next(&mut other).await, Some(Message::Close(Some(frame))) if frame.code == 4000.into()));
    assert_eq!(next(&mut other).await, None);
}

#[tokio::test]
async fn what_the_gateway_refuses_is_refused() {
    let entry = Entry::start().await;
    let Err(tungstenite::Error::Http(refused)) = entry.open(&[("origin", "https://evil.example")]).await else {
        panic!("a page of another host has a socket");
    };
    assert_eq!(refused.status(), 403);
    assert_eq!(entry.get("/ws").await.0, 426);
}

#[tokio::test]
async fn a_stop_waits_for_sockets_and_then_cuts_them() {
    for closes in [true, false] {
        let mut entry = Entry::start().await;
        let mut socket = entry.open(&[]).await.unwrap();
        next(&mut socket).await.unwrap();
        entry.terminate();
        while TcpStream::connect(entry.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        // It takes nobody any more, and who is there can still talk.
        socket.send(Message::text("still here")).await.unwrap();
        assert_eq!(next(&mut socket).await.unwrap(), Message::text("still here"));
        if closes {
            socket.send(Message::text("bye")).await.unwrap();
        }
        while next(&mut socket).await.is_some() {}
        let status = loop {
            if let Some(status) = entry.child.try_wait().unwrap() {
                break status;
            }
            tokio::task::yield_now().await;
        };
        assert!(status.success(), "{status}");
    }
}
