//! The gateway's way in with an echo behind it, for suites that test how a WebSocket server behaves.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{self, Message};
use tower::Service;

use crate::{
    dispatch::close,
    service::{refuse, upgrade},
    settings::Limits,
    wire::{self, Io, Reader, Said, Writer},
};

/// How long a client is given to answer a close.
const FAREWELL: Duration = Duration::from_secs(5);

/// Says back whatever it hears. It reads, bounds and writes as the gateway does, but takes binary messages too, and the
/// full size from the start.
#[derive(Clone, Debug)]
pub struct Echo {
    limits: Limits,
}

impl Echo {
    /// With these limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits }
    }
}

impl<B> Service<Request<B>> for Echo {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        ready(Ok(match upgrade(&mut request) {
            Ok((upgraded, response)) => {
                let limits = self.limits.clone();
                tokio::spawn(async move {
                    if let Ok(io) = upgraded.await {
                        serve(Box::new(TokioIo::new(io)), &limits).await;
                    }
                });
                response
            }
            Err(fault) => refuse(&fault),
        }))
    }
}

async fn serve(io: Box<dyn Io>, limits: &Limits) {
    let (mut reader, mut writer) = wire::split(io, limits).await;
    reader.trust();
    reader.take_binary();
    // An error says that nobody is there any more.
    let _ = echo(&mut reader, &mut writer).await;
    let _ = timeout(FAREWELL, reader.drain()).await;
}

async fn echo(reader: &mut Reader, writer: &mut Writer) -> Result<(), tungstenite::Error> {
    loop {
        match reader.recv().await {
            Ok(Said::Text(text)) => writer.feed(Message::Text(text)).await?,
            Ok(Said::Binary(bytes)) => writer.feed(Message::Binary(bytes)).await?,
            Ok(Said::Control) => {}
            Err(why) => {
                if let Some(code) = why {
                    writer.feed(close(code)).await?;
                }
                return writer.flush().await;
            }
        }
        writer.flush().await?;
    }
}
