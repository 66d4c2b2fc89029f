//! The service in a host's axum router, over real sockets.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::Router;
use futures_util::StreamExt;
use jiscord_core::{
    Code, Fault, GuildId, UserId,
    backend::{Actor, Backend, GuildState, Identity, Membership, Sent, TokenVerifier},
    fault::Result,
    frame::SendMessage,
    model::User,
    time::SystemClock,
};
use jiscord_gateway::{Gateway, LocalBus, Settings};
use jiscord_store::memory::MemoryStore;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::Message;

/// Knows nobody.
struct Nobody;

#[async_trait]
impl TokenVerifier for Nobody {
    async fn verify_token(&self, _: &str) -> Result<Identity> {
        Err(Fault::new(Code::UNAUTHORIZED, "nobody is known here"))
    }
}

#[async_trait]
impl Backend for Nobody {
    async fn user(&self, _: Actor, _: UserId) -> Result<User> {
        Err(Fault::not_found("user"))
    }

    async fn memberships(&self, _: Actor, _: UserId) -> Result<Vec<Membership>> {
        Ok(Vec::new())
    }

    async fn load_guild(&self, _: Actor, _: GuildId) -> Result<Option<GuildState>> {
        Ok(None)
    }

    async fn send_message(&self, _: Actor, _: SendMessage) -> Result<Sent> {
        Err(Fault::not_found("channel"))
    }
}

async fn serve() -> (Gateway, String) {
    let bus = LocalBus::start(MemoryStore::new(Arc::new(SystemClock))).await.unwrap();
    let mut settings = Settings::default();
    settings.origins = vec!["https://chat.example".into()];
    let gateway = Gateway::new(Arc::new(Nobody), bus, settings);
    let router = Router::new().route_service("/ws", gateway.service());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (gateway, address)
}

/// Asks for an upgrade, with these headers beside or instead of the usual ones; returns the answer's head.
async fn ask(address: &str, method: &str, headers: &[(&str, &str)]) -> (String, TcpStream) {
    let mut all = vec![
        ("Host", address),
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for header in headers {
        all.retain(|other| other.0 != header.0);
        if !header.1.is_empty() {
            all.push(*header);
        }
    }
    let lines: String = all.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(format!("{method} /ws HTTP/1.1\r\n{lines}\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    (String::from_utf8(head).unwrap().to_lowercase(), socket)
}

#[tokio::test]
async fn only_a_websocket_from_a_page_of_ours_is_upgraded() {
    let (_gateway, address) = serve().await;
    let own = format!("http://{address}");
    for (headers, status) in [
        (vec![], "101"),
        (vec![("Origin", own.as_str())], "101"),
        (vec![("Origin", "https://chat.example")], "101"),
        (vec![("Origin", "http://chat.example")], "403"),
        (vec![("Origin", "https://evil.example")], "403"),
        (vec![("Origin", "null")], "403"),
        (vec![("Upgrade", "")], "426"),
        (vec![("Connection", "keep-alive")], "426"),
        (vec![("Sec-WebSocket-Version", "8")], "426"),
        (vec![("Sec-WebSocket-Key", "short")], "426"),
    ] {
        let (head, _) = ask(&address, "GET", &headers).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{headers:?}: {head}");
    }
    let (head, _) = ask(&address, "POST", &[]).await;
    assert!(head.starts_with("http/1.1 426") && head.contains("sec-websocket-version: 13"), "{head}");
    // The example of RFC 6455, 1.3.
    let (head, _) = ask(&address, "GET", &[]).await;
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
}

#[tokio::test]
async fn a_gateway_that_goes_down_says_goodbye_and_takes_nobody_in() {
    let (gateway, address) = serve().await;
    let (_, socket) = ask(&address, "GET", &[]).await;
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    let mut client = tokio_tungstenite::WebSocketStream::from_raw_socket(socket, role, None).await;
    assert!(client.next().await.unwrap().unwrap().to_text().unwrap().contains("HELLO"));
    let goodbye = async {
        let mut said = Vec::new();
        while let Some(Ok(message)) = client.next().await {
            said.push(message);
        }
        said
    };
    let ((), said) = tokio::join!(gateway.shutdown(Duration::from_secs(20)), goodbye);
    assert!(said[0].to_text().unwrap().contains("RECONNECT"), "{said:?}");
    assert!(matches!(&said[1], Message::Close(Some(frame)) if u16::from(frame.code) == 1001), "{said:?}");
    assert_eq!(gateway.connections(), 0);
    let (head, _) = ask(&address, "GET", &[]).await;
    assert!(head.starts_with("http/1.1 503") && head.contains("retry-after: 1"), "{head}");
}
