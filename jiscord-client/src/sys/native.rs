//! Tokio, reqwest and tungstenite.

use std::{future::Future, pin::Pin, time::Duration};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use reqwest::{Response, StatusCode, header};
use secrecy::ExposeSecret;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

use super::{Failure, Incoming, MAX_FRAME, Reply, Request};
use crate::error::{Error, Result, Source};

pub(crate) use tokio::time::{Instant, sleep, sleep_until, timeout};
pub(crate) use url::Url;

/// Adds to an address's query.
pub(crate) fn add_query(url: &mut Url, parameter: &str, value: &str) {
    url.query_pairs_mut().append_pair(parameter, value);
}

/// Something to be done.
pub(crate) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs `work` beside the caller.
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes[..]);
    bytes
}

/// Makes HTTP calls and opens WebSockets. One client does both, so that TLS, proxies and name look-up are the same for all.
#[derive(Clone)]
pub(crate) struct Transport(reqwest::Client);

/// The headers of an answer.
pub(crate) struct Headers(header::HeaderMap);

impl Headers {
    /// A header's value, if it is there and text.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.0.get(name)?.to_str().ok().map(str::to_owned)
    }
}

impl Transport {
    /// Fails where TLS cannot be set up.
    pub(crate) fn new() -> Result<Self> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("jiscord-client/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            // A WebSocket begins as HTTP/1.1, and one client serves both.
            .http1_only()
            .build()
            .map_err(|error| Error::Unreachable(error.into()))?;
        Ok(Self(client))
    }

    /// Makes a call.
    pub(crate) async fn call(&self, request: Request) -> Result<Reply, Failure> {
        let Request { method, url, token, body, timeout, max_body } = request;
        let mut builder = self.0.request(method, url).timeout(timeout);
        if let Some(token) = token {
            builder = builder.bearer_auth(token.expose_secret());
        }
        if let Some(body) = body {
            builder = builder.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        let mut response = builder.send().await.map_err(|error| match error.is_connect() || error.is_builder() {
            true => Failure::NotSent(error.into()),
            false => Failure::Lost(error.into()),
        })?;
        let headers = Headers(std::mem::take(response.headers_mut()));
        Ok(Reply { status: response.status(), headers, body: bytes(response, max_body).await })
    }

    /// Opens a WebSocket.
    pub(crate) async fn connect(&self, url: &Url) -> Result<(Writer, Reader), Source> {
        let key = generate_key();
        let request = self
            .0
            .get(url.clone())
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, &key);
        let response = request.send().await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(format!("{url} answered {} and is no gateway", response.status()).into());
        }
        let accepted = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        if accepted.is_none_or(|accept| accept.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(format!("{url} does not speak WebSocket").into());
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(4 << 10)
            .write_buffer_size(4 << 10)
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        let stream = WebSocketStream::from_raw_socket(response.upgrade().await?, Role::Client, Some(config)).await;
        let (sink, stream) = stream.split();
        Ok((Writer(sink), Reader(stream)))
    }
}

async fn bytes(mut response: Response, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Error::Unreachable(error.into()))? {
        if bytes.len() + chunk.len() > most {
            return Err(Error::Protocol("an answer without end".into()));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

type Stream = WebSocketStream<reqwest::Upgraded>;

/// The end of a WebSocket that is written to.
pub(crate) struct Writer(SplitSink<Stream, Message>);

/// The end of a WebSocket that is read from.
pub(crate) struct Reader(SplitStream<Stream>);

impl Writer {
    /// Writes a text frame.
    pub(crate) async fn send(&mut self, text: String) -> Result<(), Source> {
        Ok(self.0.send(Message::text(text)).await?)
    }

    /// Says that nothing follows.
    pub(crate) async fn close(&mut self) -> Result<(), Source> {
        Ok(self.0.close().await?)
    }
}

impl Reader {
    /// The next frame. Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> Incoming {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => Incoming::Text(text.to_string()),
            Some(Ok(Message::Close(frame))) => Incoming::Closed(frame.map(|frame| frame.code.into())),
            Some(Ok(_)) => Incoming::Other,
            Some(Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed)) | None => Incoming::Closed(None),
            Some(Err(error)) => Incoming::Lost(error.into()),
        }
    }
}
