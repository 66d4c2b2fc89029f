//! The one error that crosses between rooms and over the wire.

use std::{borrow::Cow, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::text::TextError;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal $status:literal),+ $(,)?) => {
        /// What went wrong, as a stable word that programs match on. Words from the future are kept as they are.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(type = "string"))]
        #[serde(transparent)]
        pub struct Code(Cow<'static, str>);

        impl Code {
            $($(#[$doc])* pub const $name: Self = Self(Cow::Borrowed($text));)+

            /// All words that are known here.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The HTTP status that goes with it; 500 for a word not known here.
            pub fn status(&self) -> u16 {
                match &*self.0 {
                    $($text => $status,)+
                    _ => 500,
                }
            }
        }
    };
}

codes! {
    /// Not what was asked for: no JSON, a field missing or of another type, an id that is none. Mend the request.
    MALFORMED = "malformed" 400,
    /// No credentials, or bad or expired ones. Log in again.
    UNAUTHORIZED = "unauthorized" 401,
    /// Known, visible, but not allowed to this caller.
    FORBIDDEN = "forbidden" 403,
    /// Not there, or not visible to this caller.
    NOT_FOUND = "not_found" 404,
    /// The path is there, the method is not.
    METHOD_NOT_ALLOWED = "method_not_allowed" 405,
    /// The request took too long to arrive.
    TIMEOUT = "timeout" 408,
    /// It does not fit to how things are.
    CONFLICT = "conflict" 409,
    /// Somebody has an account with this address.
    EMAIL_IN_USE = "email_in_use" 409,
    /// The nonce was used for another message within a day. Take a new one.
    NONCE_REUSED = "nonce_reused" 409,
    /// The body or frame is over the limit.
    TOO_LARGE = "too_large" 413,
    /// The body is not `application/json`.
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type" 415,
    /// Understood, but against a rule, such as a length.
    INVALID = "invalid" 422,
    /// Too fast. Wait for `retryAfter`.
    RATE_LIMITED = "rate_limited" 429,
    /// A defect of the server.
    INTERNAL = "internal" 500,
    /// This server cannot do that.
    UNSUPPORTED = "unsupported" 501,
    /// A queue is full; nothing was done. Wait for `retryAfter`.
    BUSY = "busy" 503,
    /// Something that the server needs is away; nothing was done. Wait for `retryAfter`.
    UNAVAILABLE = "unavailable" 503,
    /// It may or may not have been done. Ask again with the same nonce.
    OUTCOME_UNKNOWN = "outcome_unknown" 503,
    /// The disk is full; nothing was done.
    STORAGE_FULL = "storage_full" 503,
    /// An op that this server does not know. The connection stays.
    UNKNOWN_OP = "unknown_op" 400,
}

impl Code {
    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why something was not done, in words for whoever asked. What happened inside is its source, which is never sent.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The stable word.
    pub code: Code,
    /// A sentence.
    pub message: String,
    /// When asking again makes sense.
    pub retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a fallible call across a seam returns.
pub type Result<T, E = Fault> = std::result::Result<T, E>;

impl Fault {
    /// A fault with nothing behind it.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, source: None }
    }

    /// Says when to ask again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Keeps what happened inside, for the log.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Not there, or not visible: the same answer for both.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NOT_FOUND, format!("{what} not found"))
    }

    /// The body of an HTTP answer.
    pub fn body(&self) -> ErrorBody {
        ErrorBody { error: self.message.clone(), code: self.code.clone() }
    }
}

impl From<TextError> for Fault {
    fn from(error: TextError) -> Self {
        Self::new(Code::INVALID, error.to_string())
    }
}

/// The body of every HTTP answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct ErrorBody {
    /// A sentence for people.
    pub error: String,
    /// A word for programs.
    pub code: Code,
}
