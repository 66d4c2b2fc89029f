//! What differs from platform to platform, and nothing else: time, tasks, chance, addresses, HTTP calls and the WebSocket.

use std::time::Duration;

use http::{Method, StatusCode};
use secrecy::SecretString;

use crate::error::{Result, Source};

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod web;

#[cfg(not(target_family = "wasm"))]
pub(crate) use native::*;
#[cfg(target_family = "wasm")]
pub(crate) use web::*;

/// The largest frame that is taken from a gateway. It sends none that comes near.
const MAX_FRAME: usize = 1 << 20;

/// A call to be made.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) token: Option<SecretString>,
    /// JSON.
    pub(crate) body: Option<Vec<u8>>,
    /// Until the whole answer is there.
    pub(crate) timeout: Duration,
    /// The most that is read of the answer's body.
    pub(crate) max_body: usize,
}

/// What was answered.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Headers,
    pub(crate) body: Result<Vec<u8>>,
}

/// Why there is no answer.
pub(crate) enum Failure {
    /// The server has not seen the call.
    NotSent(Source),
    /// It may have.
    Lost(Source),
}

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

/// A nonce that nobody else has.
pub(crate) fn nonce() -> String {
    format!("{:032x}", u128::from_be_bytes(random()))
}

/// Some time below `most`.
pub(crate) fn random_below(most: Duration) -> Duration {
    // 53 bits are what a float between 0 and 1 has room for.
    most.mul_f64((u64::from_be_bytes(random()) >> 11) as f64 / (1_u64 << 53) as f64)
}
