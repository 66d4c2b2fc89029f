//! A gateway that does what the test says, on a port of its own.

pub(crate) mod api;

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use jiscord_client::{
    Builder, Client, Endpoints,
    core::{ChannelId, ClientFrame, MessageId, Position, ServerFrame, Timestamp, UserId, frame::*, model::*},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message as Frame,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// So much is only reached where something hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// A heartbeat that does not come in a test's time.
pub(crate) const SLOW: u64 = 3_600_000;

/// Awaits what has to happen.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it never happened")
}

pub(crate) fn user() -> User {
    let user_id: UserId = "a00c0580-e748-11f1-8000-010000000000".parse().unwrap();
    User { user_id, username: "Ada".into(), email: None, created_at: None }
}

pub(crate) fn channel(number: u32) -> ChannelId {
    format!("{number:08x}-e748-11f1-8000-010000000000").parse().unwrap()
}

pub(crate) fn message_id(number: u32) -> MessageId {
    format!("{number:08x}-e912-11f1-8000-010000000000").parse().unwrap()
}

pub(crate) fn message(number: u32, content: &str) -> ServerFrame {
    ServerFrame::MessageCreate(Message {
        message_id: message_id(number),
        channel_id: channel(1),
        author_id: user().user_id,
        content: content.into(),
        created_at: Timestamp::from_ms(0),
        author: None,
        rev: 0,
        nonce: None,
        reply_to: None,
    })
}

pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) url: String,
    pub(crate) api: api::Api,
    api_url: String,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (api, api_url) = api::Api::start().await;
        Self { listener, url, api, api_url }
    }

    pub(crate) fn endpoints(&self) -> Endpoints {
        Endpoints::services(&self.api_url, &self.api_url, &self.url).unwrap()
    }

    /// A client that comes back quickly.
    pub(crate) fn builder(&self) -> Builder {
        Client::builder(self.endpoints()).backoff(Duration::from_millis(2), Duration::from_millis(20))
    }

    /// The next connection, before any frame.
    pub(crate) async fn accept(&self) -> Peer {
        soon(async {
            let (stream, _) = self.listener.accept().await.unwrap();
            Peer(tokio_tungstenite::accept_async(stream).await.unwrap())
        })
        .await
    }

    /// The next connection, with HELLO said and RESUME heard.
    pub(crate) async fn resumes(&self, heartbeat_interval: u64) -> (Peer, Resume) {
        let mut peer = self.accept().await;
        peer.say(ServerFrame::Hello(Hello { heartbeat_interval })).await;
        match peer.hear().await {
            ClientFrame::Resume(resume) => (peer, resume),
            other => panic!("{other:?}"),
        }
    }

    /// The next connection, with HELLO said and IDENTIFY heard. Whoever would resume begins anew as well.
    pub(crate) async fn identified(&self, heartbeat_interval: u64) -> (Peer, Identify) {
        let mut peer = self.accept().await;
        peer.say(ServerFrame::Hello(Hello { heartbeat_interval })).await;
        match peer.hear().await {
            ClientFrame::Identify(identify) => (peer, identify),
            ClientFrame::Resume(Resume { token, device, intents, attempt, .. }) => {
                (peer, Identify { token, device, intents, attempt })
            }
            other => panic!("{other:?}"),
        }
    }

    /// The next connection, up to READY.
    pub(crate) async fn session(&self, heartbeat_interval: u64) -> Peer {
        let (mut peer, _) = self.identified(heartbeat_interval).await;
        peer.ready().await;
        peer
    }

    /// A client and its first session.
    pub(crate) async fn client(&self, heartbeat_interval: u64) -> (Client, Peer) {
        let (client, peer) = tokio::join!(self.builder().connect("token"), self.session(heartbeat_interval));
        (client.unwrap(), peer)
    }
}

/// The server's end of a connection.
pub(crate) struct Peer(WebSocketStream<TcpStream>);

impl Peer {
    pub(crate) async fn say(&mut self, frame: ServerFrame) {
        self.say_text(&frame.at(None).encode()).await;
    }

    pub(crate) async fn say_at(&mut self, p: u64, frame: ServerFrame) {
        self.say_text(&frame.at(Position(p)).encode()).await;
    }

    /// False if the client is gone.
    pub(crate) async fn try_say_at(&mut self, p: u64, frame: ServerFrame) -> bool {
        self.0.send(Frame::text(frame.at(Position(p)).encode())).await.is_ok()
    }

    pub(crate) async fn say_text(&mut self, text: &str) {
        self.0.send(Frame::text(text)).await.unwrap();
    }

    pub(crate) async fn say_binary(&mut self, bytes: &'static [u8]) {
        self.0.send(Frame::binary(bytes)).await.unwrap();
    }

    pub(crate) async fn ready(&mut self) {
        self.ready_with(1, vec![]).await;
    }

    pub(crate) async fn ready_with(&mut self, p: u64, guilds: Vec<Guild>) {
        let session_id = "0f8fad5b-d9cb-469f-a165-70867728950e".parse().unwrap();
        let ready = Ready { user_id: user().user_id, session_id, user: user(), guilds, protocol: PROTOCOL, epoch: "e".into() };
        self.say_at(p, ServerFrame::Ready(ready)).await;
    }

    pub(crate) async fn acknowledge(&mut self, send: &SendMessage, number: u32) {
        let nonce = send.nonce.clone().unwrap();
        let ack = MessageAck { nonce, message_id: message_id(number), channel_id: send.channel_id };
        self.say(ServerFrame::MessageAck(ack)).await;
    }

    pub(crate) async fn refuse(&mut self, send: &SendMessage, code: jiscord_client::core::Code, retry_after: Option<u64>) {
        let (message, op) = ("no".into(), Some("SEND_MESSAGE".into()));
        self.say(ServerFrame::Error(ErrorFrame { code, message, op, nonce: send.nonce.clone(), retry_after })).await;
    }

    /// The client's next frame; `None` when it is gone.
    pub(crate) async fn try_hear(&mut self) -> Option<ClientFrame> {
        soon(async {
            loop {
                match self.0.next().await {
                    Some(Ok(Frame::Text(text))) => return Some(ClientFrame::read(&text).unwrap()),
                    Some(Ok(Frame::Close(_)) | Err(_)) | None => return None,
                    Some(Ok(_)) => {}
                }
            }
        })
        .await
    }

    pub(crate) async fn hear(&mut self) -> ClientFrame {
        self.try_hear().await.expect("the client is gone")
    }

    /// The client's next message, whatever else it says.
    pub(crate) async fn hear_message(&mut self) -> SendMessage {
        loop {
            if let ClientFrame::SendMessage(send) = self.hear().await {
                return send;
            }
        }
    }

    /// Waits until the client is gone, whatever it says.
    pub(crate) async fn gone(mut self) {
        while self.try_hear().await.is_some() {}
    }

    pub(crate) async fn close(mut self, code: u16) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "".into() };
        self.0.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.0.next().await {}
    }
}
