//! A gateway connection that knows frames as JSON and no more.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::{PATIENCE, within};

/// A connection to the gateway.
pub struct Socket(WebSocketStream<TcpStream>);

/// A connection has ended, with this close code; none: it was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End(pub Option<u16>);

impl Socket {
    /// Connects, and hears HELLO.
    pub async fn open(url: &str) -> Self {
        let (mut socket, hello) = Self::greeted(url).await;
        assert_eq!(hello["op"], "HELLO");
        assert!(socket.0.get_mut().set_nodelay(true).is_ok());
        socket
    }

    /// Connects, and gives the first frame.
    pub async fn greeted(url: &str) -> (Self, Value) {
        let host = url.strip_prefix("ws://").unwrap().split('/').next().unwrap();
        let stream = within(PATIENCE, TcpStream::connect(host)).await.unwrap();
        let (socket, _) = within(PATIENCE, client_async(url, stream)).await.unwrap();
        let mut socket = Self(socket);
        let hello = socket.next().await.unwrap();
        (socket, hello)
    }

    /// Connects, and hears HELLO; none where nobody answers in this time.
    pub async fn dial(url: &str, patience: Duration) -> Option<Self> {
        Self::dial_from(TcpSocket::new_v4().ok()?, url, patience).await
    }

    /// The same from a TCP socket with settings of its own.
    pub async fn dial_from(from: TcpSocket, url: &str, patience: Duration) -> Option<Self> {
        let dialling = async {
            let host = url.strip_prefix("ws://").unwrap().split('/').next().unwrap();
            let stream = from.connect(host.parse().ok()?).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let mut socket = Self(client_async(url, stream).await.ok()?.0);
            let hello = socket.next().await.ok()?;
            (hello["op"] == "HELLO").then_some(socket)
        };
        tokio::time::timeout(patience, dialling).await.ok()?
    }

    /// Says a frame.
    pub async fn say(&mut self, op: &str, d: Value) {
        self.say_text(&json!({"op": op, "d": d}).to_string()).await;
    }

    /// Says whatever text this is. That the other side may be gone already is seen by listening.
    pub async fn say_text(&mut self, text: &str) {
        let _ = self.0.send(Message::text(text)).await;
    }

    /// Says bytes that are no text.
    pub async fn say_binary(&mut self, bytes: &[u8]) {
        let _ = self.0.send(Message::binary(bytes.to_vec())).await;
    }

    /// Writes a message.
    pub async fn send(&mut self, channel: &str, content: &str) {
        self.say("SEND_MESSAGE", json!({"channelId": channel, "content": content})).await;
    }

    /// Writes a message with a nonce.
    pub async fn send_once(&mut self, channel: &str, content: &str, nonce: &str) {
        self.say("SEND_MESSAGE", json!({"channelId": channel, "content": content, "nonce": nonce})).await;
    }

    /// The next frame, or how it ended.
    pub async fn next(&mut self) -> Result<Value, End> {
        loop {
            match within(PATIENCE, self.0.next()).await {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(End(frame.map(|frame| frame.code.into()))),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => panic!("the gateway speaks in text frames, not {other:?}"),
                Some(Err(_)) | None => return Err(End(None)),
            }
        }
    }

    /// The next frame, which must be of this op.
    pub async fn hear(&mut self, op: &str) -> Value {
        let frame = self.next().await.unwrap_or_else(|end| panic!("{op} was expected, not {end:?}"));
        assert_eq!(frame["op"], op, "{frame}");
        frame
    }

    /// The next frame of this op, whatever comes before it.
    pub async fn hear_past(&mut self, op: &str) -> Value {
        loop {
            let frame = self.next().await.unwrap_or_else(|end| panic!("{op} was expected, not {end:?}"));
            if frame["op"] == op {
                return frame;
            }
        }
    }

    /// All that is still said, and how it ends.
    pub async fn rest(&mut self) -> (Vec<Value>, End) {
        let mut said = Vec::new();
        loop {
            match self.next().await {
                Ok(frame) => said.push(frame),
                Err(end) => return (said, end),
            }
        }
    }

    /// The ops of all that is still said, and the close code.
    pub async fn last_words(&mut self) -> (Vec<String>, Option<u16>) {
        let (said, End(code)) = self.rest().await;
        (said.iter().map(|frame| frame["op"].as_str().unwrap().to_owned()).collect(), code)
    }
}
