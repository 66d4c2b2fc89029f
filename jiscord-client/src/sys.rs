//! What differs from platform to platform, and nothing else: time, tasks, chance and the WebSocket.

use std::{future::Future, time::Duration};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use reqwest::{StatusCode, header};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};
use url::Url;

use crate::error::Source;

pub(crate) use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The largest frame that is taken from a gateway. It sends none that comes near.
const MAX_FRAME: usize = 1 << 20;

/// Runs `work` beside the caller.
pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

/// A nonce that nobody else has.
pub(crate) fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Some time below `most`.
pub(crate) fn random_below(most: Duration) -> Duration {
    most.mul_f64(rand::random())
}

type Stream = WebSocketStream<reqwest::Upgraded>;

/// The end of a WebSocket that is written to.
pub(crate) struct Writer(SplitSink<Stream, Message>);

/// The end of a WebSocket that is read from.
pub(crate) struct Reader(SplitStream<Stream>);

/// What came from a WebSocket.
pub(crate) enum Incoming {
    /// A text frame.
    Text(String),
    /// A frame that means nothing to us.
    Other,
    /// The server closed the connection, and why.
    Closed(Option<u16>),
    /// The connection is gone.
    Lost(Source),
}

/// Opens a WebSocket. The HTTP client does it, so that TLS, proxies and name look-up are the same for all there is.
pub(crate) async fn connect(http: &reqwest::Client, url: &Url) -> Result<(Writer, Reader), Source> {
    let key = generate_key();
    let request = http
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
