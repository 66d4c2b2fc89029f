//! What can go wrong with a store, by what the caller can do about it.

use std::time::Duration;

use jiscord_core::{Code, Fault};

/// What a driver said; boxed, so that a new driver is no breaking change.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// What a store returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a store did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Somebody else has it. Ask for another one.
    #[error("{0} is taken")]
    Taken(&'static str),
    /// The nonce was used for another message. Take a new one.
    #[error("nonce was used for another message")]
    NonceReused,
    /// Too many writes wait; this one was not begun. Try again in a moment.
    #[error("too many writes wait")]
    Busy,
    /// The database did not answer, and the write was not begun. Trying again may help.
    #[error("store unavailable")]
    Unavailable(#[source] Source),
    /// The database may or may not have it. Asking again with the same nonce is safe.
    #[error("outcome unknown")]
    Unknown(#[source] Source),
    /// There is no room left; nothing was written. Somebody must make room.
    #[error("storage full")]
    Full(#[source] Source),
    /// A stored row makes no sense. Trying again will not help.
    #[error("corrupt row")]
    Corrupt(#[source] Source),
    /// A defect of the program, such as a [`Tell`](crate::Tell) that panics; nothing was written. Trying again will not help.
    #[error("internal error")]
    Internal(#[source] Source),
    /// This store does not do that.
    #[error("{0} is not supported by this store")]
    Unsupported(&'static str),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let soon = Duration::from_secs(1);
        let fault = match &error {
            Error::Taken("email") => Fault::new(Code::EMAIL_IN_USE, "Email already in use"),
            Error::Taken(what) => Fault::new(Code::CONFLICT, format!("{what} is taken")),
            Error::NonceReused => Fault::new(Code::NONCE_REUSED, "this nonce was used for another message; take a new one"),
            Error::Busy => Fault::new(Code::BUSY, "too many writes wait; try again").retry_after(soon),
            Error::Unavailable(_) => Fault::new(Code::UNAVAILABLE, "the database is away; nothing was stored").retry_after(soon),
            Error::Unknown(_) => {
                Fault::new(Code::OUTCOME_UNKNOWN, "it may or may not be stored; ask again with the same nonce").retry_after(soon)
            }
            Error::Full(_) => {
                Fault::new(Code::STORAGE_FULL, "the server has no room left; nothing was stored").retry_after(soon * 30)
            }
            Error::Corrupt(_) | Error::Internal(_) => Fault::new(Code::INTERNAL, "internal error"),
            Error::Unsupported(what) => Fault::new(Code::UNSUPPORTED, format!("{what} is not supported by this server")),
        };
        fault.because(error)
    }
}
