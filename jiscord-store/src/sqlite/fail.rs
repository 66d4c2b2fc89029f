//! What SQLite says, put by what the caller can do about it.

use rusqlite::ErrorCode;

use crate::error::Error;

/// Why a piece of work inside the database did not succeed.
#[derive(Debug)]
pub(super) enum Fail {
    /// It is the caller's; the database is well.
    Store(Error),
    /// SQLite's own.
    Sql(rusqlite::Error),
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for Fail {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// What an error says about the database behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// This statement made no sense; others will.
    Well,
    /// No room. The connection is good.
    Full,
    /// Somebody else holds a lock, or memory is short. The connection is good.
    Occupied,
    /// The disk, the file or the connection is not to be trusted.
    Broken,
}

pub(super) fn health(error: &rusqlite::Error) -> Health {
    let rusqlite::Error::SqliteFailure(error, _) = error else { return Health::Well };
    match error.code {
        ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::ParameterOutOfRange => {
            Health::Well
        }
        ErrorCode::DiskFull => Health::Full,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OutOfMemory | ErrorCode::OperationInterrupted => {
            Health::Occupied
        }
        _ => Health::Broken,
    }
}

/// The error of work of which nothing is kept.
pub(super) fn undone(error: rusqlite::Error) -> Error {
    match health(&error) {
        _ if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) => {
            Error::Corrupt(error.into())
        }
        Health::Well => Error::Corrupt(error.into()),
        Health::Full => Error::Full(error.into()),
        Health::Occupied | Health::Broken => Error::Unavailable(error.into()),
    }
}

impl From<Fail> for Error {
    fn from(fail: Fail) -> Self {
        match fail {
            Fail::Store(error) => error,
            Fail::Sql(error) => undone(error),
        }
    }
}
