//! The edge's bounds, over real sockets.
#![expect(clippy::unwrap_used, reason = "a test's helpers may fail as tests do")]

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
    routing::{any, get},
};
use hyper_util::rt::TokioIo;
use jiscord_bin_kit::{Edge, Proxies, edge::Limits};
use jiscord_core::http::ClientAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

fn limits() -> Limits {
    let seconds = Duration::from_secs;
    Limits { sockets: 100, sockets_per_address: 100, requests: 100, head: seconds(10), drain: seconds(10) }
}

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    done: JoinHandle<()>,
}

impl Server {
    async fn start(limits: Limits, proxies: &str, router: Router) -> Self {
        let edge = Edge::bind("127.0.0.1:0".parse().unwrap(), Proxies::parse(proxies).unwrap(), limits).await.unwrap();
        let (address, stop) = (edge.address().unwrap(), CancellationToken::new());
        let done = tokio::spawn(edge.serve(router, stop.clone()));
        Self { address, stop, done }
    }

    async fn open(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// One request on a socket of its own; the whole answer.
    async fn ask(&self, head: &str) -> String {
        let mut socket = self.open().await;
        // The server may have turned us away before all was written.
        let _ = socket.write_all(format!("{head}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    /// The status of an upgrade, and its socket.
    async fn upgrade(&self, client: &str) -> (String, TcpStream) {
        let mut socket = self.open().await;
        let head =
            format!("GET /up HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\nx-forwarded-for: {client}\r\n\r\n");
        let _ = socket.write_all(head.as_bytes()).await;
        let mut status = [0; 12];
        socket.read_exact(&mut status).await.unwrap();
        (String::from_utf8(status.to_vec()).unwrap(), socket)
    }

    /// Waits until a request is answered with this status: seats become free a moment after a socket is closed.
    async fn until(&self, status: &str) {
        let found = timeout(Duration::from_secs(20), async {
            while !self.ask("GET / HTTP/1.1").await.starts_with(status) {
                tokio::task::yield_now().await;
            }
        });
        found.await.unwrap();
    }
}

fn router() -> Router {
    async fn up(mut request: Request<Body>) -> Response<Body> {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let _ = io.read_to_end(&mut Vec::new()).await;
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
        response.headers_mut().insert(header::UPGRADE, "echo".parse().unwrap());
        response
    }
    Router::new()
        .route("/", get(|Extension(ClientAddr(client)): Extension<ClientAddr>| async move { client.to_string() }))
        .route("/up", any(up))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("of the test")
                }
            }),
        )
        .route("/never", get(|| async { pending::<()>().await }))
}

/// Reads until the other side closes.
async fn closed(mut socket: TcpStream) -> String {
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest).await;
    String::from_utf8(rest).unwrap()
}

#[tokio::test(start_paused = true)]
async fn silence_before_the_first_byte_is_closed() {
    let server = Server::start(limits(), "", router()).await;
    assert_eq!(closed(server.open().await).await, "");
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_is_closed() {
    let server = Server::start(limits(), "", router()).await;
    let (mut read, mut write) = server.open().await.into_split();
    let trickle = async {
        write.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        while write.write_all(b"a").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    let mut byte = [0];
    tokio::select! {
        () = trickle => {}
        read = read.read(&mut byte) => assert!(matches!(read, Ok(0) | Err(_))),
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_idles_after_an_answer_is_closed() {
    let server = Server::start(limits(), "", router()).await;
    let mut socket = server.open().await;
    socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = closed(socket).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
}

#[tokio::test]
async fn heads_are_bounded() {
    let server = Server::start(limits(), "", router()).await;
    let lines = |count: usize| (0..count).map(|n| format!("\r\nx{n}: y")).collect::<String>();
    for (head, want) in [
        (format!("GET / HTTP/1.1{}", lines(60)), "HTTP/1.1 200"),
        (format!("GET / HTTP/1.1{}", lines(64)), "HTTP/1.1 431"),
        (format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(15_000)), "HTTP/1.1 200"),
        (format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(17_000)), "HTTP/1.1 431"),
        (format!("GET /?{} HTTP/1.1", "y".repeat(8_000)), "HTTP/1.1 200"),
        (format!("GET /?{} HTTP/1.1", "y".repeat(8_200)), "HTTP/1.1 414"),
        ("GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2".into(), "HTTP/1.1 400"),
        ("NONSENSE".into(), "HTTP/1.1 400"),
    ] {
        let answer = server.ask(&head).await;
        assert!(answer.starts_with(want), "{}…: {answer}", &head[..20.min(head.len())]);
    }
}

/// All that is answered to these bytes, after which nothing more comes.
async fn answers(server: &Server, bytes: &[u8]) -> String {
    let (mut read, mut write) = server.open().await.into_split();
    let mut answers = Vec::new();
    let (_, _) = tokio::join!(read.read_to_end(&mut answers), async {
        let _ = write.write_all(bytes).await;
        let _ = write.shutdown().await;
    });
    String::from_utf8(answers).unwrap()
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_one_request_or_none() {
    // It comes where a body ends for who reads the length in one way, and within the body for who reads it in the other.
    const SECOND: &str = "GET /second HTTP/1.1\r\nhost: x\r\n\r\n";
    let router = router()
        .route("/first", any(|body: axum::body::Bytes| async move { format!("first of {}", body.len()) }))
        .route("/second", get(|| async { "second" }));
    let server = Server::start(limits(), "", router).await;
    let empty = format!("0\r\n\r\n{SECOND}");
    let whole = format!("{:x}\r\n{SECOND}\r\n0\r\n\r\n", SECOND.len());
    let length = empty.len();
    let (both, chunked) = (format!("content-length: {length}\r\ntransfer-encoding: chunked"), "transfer-encoding: chunked");
    let extension = format!("0;{}\r\n\r\n{SECOND}", "x".repeat(32 << 10));
    let long_size = format!("{}1\r\nx\r\n0\r\n\r\n", "0".repeat(64));
    let mut wrong = Vec::new();
    for (head, body, want) in [
        // The length does not count beside it; what follows the chunks is left unread.
        (&*both, &*empty, 200),
        (&both, &whole, 200),
        (&format!("transfer-encoding: chunked\r\ncontent-length: {length}"), &empty, 200),
        (&format!("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\ncontent-length: {length}"), &empty, 200),
        ("transfer-encoding: chunked\r\ntransfer-encoding: identity", &empty, 400),
        ("transfer-encoding: chunked, identity", &empty, 400),
        ("transfer-encoding: xchunked", &empty, 400),
        ("transfer-encoding: chunked;q=1", &empty, 400),
        ("transfer-encoding: \u{b}chunked", &empty, 400),
        ("transfer-encoding: identity", &empty, 400),
        ("transfer-encoding:", &empty, 400),
        ("transfer-encoding : chunked", &empty, 400),
        ("transfer-encoding\r\n: chunked", &empty, 400),
        (" transfer-encoding: chunked", &empty, 400),
        ("x: y\r\n transfer-encoding: chunked", &empty, 400),
        ("x: y\0\r\ntransfer-encoding: chunked", &empty, 400),
        ("x: y\rtransfer-encoding: chunked", &empty, 400),
        (&format!("content-length: 5\r\ncontent-length: {length}"), &empty, 400),
        (&format!("content-length: 5, {length}"), &empty, 400),
        ("content-length: 5, 5", &empty, 400),
        ("content-length: +5", &empty, 400),
        ("content-length: -5", &empty, 400),
        ("content-length: 0x5", &empty, 400),
        ("content-length: 5 5", &empty, 400),
        ("content-length:", &empty, 400),
        ("content-length: 99999999999999999999999", &empty, 400),
        ("content-length : 5", &empty, 400),
        ("host: y\r\ncontent-length: 5", &empty, 400),
        // What is in chunks is read to its end, and no more.
        (chunked, &extension, 400),
        (chunked, &long_size, 200),
        (chunked, "ffffffffffffffffff\r\nx", 400),
        (chunked, "-1\r\nx\r\n0\r\n\r\n", 400),
        (chunked, "+1\r\nx\r\n0\r\n\r\n", 400),
        (chunked, "0x1\r\nx\r\n0\r\n\r\n", 400),
        (chunked, "1\nx\n0\n\n", 400),
        (chunked, "1\r\nxy\r\n0\r\n\r\n", 400),
        (chunked, "1;a\nb\r\nx\r\n0\r\n\r\n", 400),
        (chunked, &whole, 200),
        (chunked, &empty, 200),
    ] {
        let request = format!("POST /first HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n{body}");
        let answers = answers(&server, request.as_bytes()).await;
        let right = answers.starts_with(&format!("HTTP/1.1 {want}")) && answers.matches("HTTP/1.1 ").count() == 1;
        if !right || answers.ends_with("second") {
            wrong.push(format!("{head:?} {:?}, not {want}: {answers}", &body[..body.len().min(60)]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for request in [
        format!("POST /first HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n{empty}"),
        format!("POST /first HTTP/1.1\nhost: x\ntransfer-encoding: chunked\ncontent-length: 3\n\n{empty}"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
        "GET /second\r\n".into(),
    ] {
        let answers = answers(&server, request.as_bytes()).await;
        assert!(answers.matches("HTTP/1.1 ").count() <= 1 && !answers.ends_with("second"), "{request:?}: {answers}");
    }
    // Two requests that are nothing but two requests are two: a second one would have been seen.
    let two = format!("POST /first HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc{SECOND}");
    let answers = answers(&server, two.as_bytes()).await;
    assert!(answers.contains("first of 3") && answers.ends_with("second"), "{answers}");
}

#[tokio::test]
async fn an_address_has_so_many_sockets_and_no_more() {
    let server = Server::start(Limits { sockets_per_address: 2, ..limits() }, "", router()).await;
    let (status, first) = server.upgrade("-").await;
    assert_eq!(status, "HTTP/1.1 101");
    let (status, second) = server.upgrade("-").await;
    assert_eq!(status, "HTTP/1.1 101");
    let refused = server.ask("GET / HTTP/1.1").await;
    assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("\"code\":\"rate_limited\""), "{refused}");
    drop(first);
    server.until("HTTP/1.1 200").await;
    drop(second);
}

#[tokio::test]
async fn a_full_server_says_so() {
    let server = Server::start(Limits { sockets: 1, ..limits() }, "", router()).await;
    let (_, only) = server.upgrade("-").await;
    let refused = server.ask("GET / HTTP/1.1").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 10"), "{refused}");
    drop(only);
    server.until("HTTP/1.1 200").await;
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_back() {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (begun, go_on) = (begun.clone(), go_on.clone());
        move || async move {
            begun.notify_one();
            go_on.notified().await;
        }
    };
    let router = Router::new().route("/slow", get(slow)).route("/health/live", get(|| async {}));
    let server = Server::start(Limits { requests: 1, ..limits() }, "", router).await;
    let (first, ()) = tokio::join!(server.ask("GET /slow HTTP/1.1"), async {
        begun.notified().await;
        let answer = server.ask("GET /slow HTTP/1.1").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1") && answer.contains(r#""code":"busy""#),
            "{answer}"
        );
        assert!(server.ask("GET /health/live HTTP/1.1").await.starts_with("HTTP/1.1 200"));
        go_on.notify_one();
    });
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    let (again, ()) = tokio::join!(server.ask("GET /slow HTTP/1.1"), async {
        begun.notified().await;
        go_on.notify_one();
    });
    assert!(again.starts_with("HTTP/1.1 200"), "{again}");
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_client_is_counted() {
    let server = Server::start(Limits { sockets_per_address: 1, ..limits() }, "127.0.0.0/8", router()).await;
    let (status, _first) = server.upgrade("203.0.113.7").await;
    assert_eq!(status, "HTTP/1.1 101");
    assert_eq!(server.upgrade("203.0.113.7").await.0, "HTTP/1.1 429");
    assert_eq!(server.upgrade("1.1.1.1, 203.0.113.7").await.0, "HTTP/1.1 429");
    let (status, _other) = server.upgrade("203.0.113.8").await;
    assert_eq!(status, "HTTP/1.1 101");
    let told = server.ask("GET / HTTP/1.1\r\nx-forwarded-for: 203.0.113.9").await;
    assert!(told.ends_with("203.0.113.9"), "{told}");
}

#[tokio::test]
async fn a_strangers_header_is_not_believed() {
    let server = Server::start(limits(), "10.0.0.0/8", router()).await;
    let told = server.ask("GET / HTTP/1.1\r\nx-forwarded-for: 203.0.113.9").await;
    assert!(told.ends_with("127.0.0.1"), "{told}");
}

#[tokio::test]
async fn a_panic_is_one_requests() {
    let server = Server::start(limits(), "", router()).await;
    let answer = server.ask("GET /panic HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 500") && !answer.contains("of the test"), "{answer}");
    assert!(server.ask("GET / HTTP/1.1").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_stop_lets_requests_end_and_takes_no_new_ones() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (began, may_go) = (begun.clone(), go.clone());
    let slow = get(move || async move {
        began.notify_one();
        may_go.notified().await;
        "whole"
    });
    let server = Server::start(limits(), "", router().route("/slow", slow)).await;
    let idle = server.open().await;
    let mut asked = server.open().await;
    asked.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    begun.notified().await;

    server.stop.cancel();
    assert_eq!(closed(idle).await, "");
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await; // until the listener is closed
    }
    go.notify_one();
    assert!(closed(asked).await.ends_with("whole"));
    server.done.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_ever() {
    let server = Server::start(limits(), "", router()).await;
    let mut asked = server.open().await;
    asked.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    server.stop.cancel();
    server.done.await.unwrap();
    assert_eq!(closed(asked).await, "");
}

#[tokio::test]
async fn a_port_in_use_is_refused_with_its_mend() {
    let server = Server::start(limits(), "", router()).await;
    let refused = Edge::bind(server.address, Proxies::default(), limits()).await.err().unwrap();
    assert_eq!(
        refused.to_string(),
        format!("{} is in use by another program; stop it, or set PORT to another port", server.address)
    );
}
