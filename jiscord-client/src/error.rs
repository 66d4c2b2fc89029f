//! What can go wrong, by what the caller can do about it.

use std::{fmt, time::Duration};

use jiscord_core::{Code, text::TextError};

/// What happened underneath.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// What a call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done, or is not known to be done. Holds no token and no password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not an address that a server can have. Mend it.
    #[error("not a server's address: {0}")]
    Address(String),
    /// Against a rule that is known here already; nothing was sent. Mend the text.
    #[error(transparent)]
    Invalid(#[from] TextError),
    /// The credentials are wrong, expired or revoked. Log in again; the same token will not help.
    #[error("unauthorized: {0}")]
    Unauthorized(String),
    /// Another session of this user and device took this one's place. Name another device, or leave it to the other one.
    #[error("evicted by a newer session of the same user and device")]
    Evicted,
    /// The server said no. [`Refusal::code`] says why, [`Refusal::retry_after`] when to ask again, if ever.
    #[error("{0}")]
    Refused(Refusal),
    /// The server was not reached, and nothing was done. Trying again may help.
    #[error("the server cannot be reached")]
    Unreachable(#[source] Source),
    /// It may or may not have been done. A message is safe to send again with the same nonce.
    #[error("the outcome is unknown")]
    OutcomeUnknown {
        /// The nonce to repeat; `None` for what has none.
        nonce: Option<String>,
    },
    /// Too many sends wait for their answers; this one was not begun. Await some of them first.
    #[error("too many sends are under way")]
    Busy,
    /// The server said something that this version does not understand. In an event stream: one event was skipped.
    #[error("not understood")]
    Protocol(#[source] Source),
    /// The client was closed, or has ended for a reason that its event stream told.
    #[error("the client is closed")]
    Closed,
}

impl Error {
    /// Whether the same may be answered a moment later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Refused(refusal) => {
                [Code::RATE_LIMITED, Code::BUSY, Code::UNAVAILABLE, Code::TIMEOUT, Code::INTERNAL].contains(&refusal.code)
            }
            Self::Unreachable(_) | Self::Protocol(_) => true,
            _ => false,
        }
    }

    /// The same for another one who waits; what happened underneath becomes its text.
    pub(crate) fn echo(&self) -> Self {
        match self {
            Self::Address(why) => Self::Address(why.clone()),
            Self::Invalid(why) => Self::Invalid(*why),
            Self::Unauthorized(why) => Self::Unauthorized(why.clone()),
            Self::Evicted => Self::Evicted,
            Self::Refused(refusal) => Self::Refused(refusal.clone()),
            Self::Unreachable(why) => Self::Unreachable(why.to_string().into()),
            Self::OutcomeUnknown { nonce } => Self::OutcomeUnknown { nonce: nonce.clone() },
            Self::Busy => Self::Busy,
            Self::Protocol(why) => Self::Protocol(why.to_string().into()),
            Self::Closed => Self::Closed,
        }
    }
}

/// A server's no.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// A word for programs.
    pub code: Code,
    /// A sentence for people.
    pub message: String,
    /// When asking again makes sense.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>, retry_after: Option<Duration>) -> Self {
        Self { code, message: message.into(), retry_after }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}
