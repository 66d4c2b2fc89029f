//! What the driver says, put by what the caller can do about it.

use scylla::errors::{DbError, ExecutionError, RequestAttemptError};

use crate::error::Error;

/// A write, or a lightweight transaction. It is [`Error::Unavailable`] or [`Error::Busy`] only where it is sure that nothing
/// was done.
pub(super) fn write(error: ExecutionError) -> Error {
    match &error {
        ExecutionError::BadQuery(_) => Error::Internal(error.into()),
        ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_) | ExecutionError::PrepareError(_) => {
            Error::Unavailable(error.into())
        }
        ExecutionError::LastAttemptError(attempt) => match attempt {
            RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => {
                Error::Internal(error.into())
            }
            RequestAttemptError::UnableToAllocStreamId => Error::Busy,
            RequestAttemptError::DbError(said, _) => match said {
                DbError::Unavailable { .. } | DbError::IsBootstrapping => Error::Unavailable(error.into()),
                DbError::Overloaded | DbError::RateLimitReached { rejected_by_coordinator: true, .. } => Error::Busy,
                _ if is_refused(said) => Error::Internal(error.into()),
                _ => Error::Unknown(error.into()),
            },
            _ => Error::Unknown(error.into()),
        },
        _ => Error::Unknown(error.into()),
    }
}

/// A read: what is not known is asked again.
pub(super) fn read(error: ExecutionError) -> Error {
    match write(error) {
        Error::Unknown(source) => Error::Unavailable(source),
        other => other,
    }
}

/// Whether the connection broke, so that another try may well succeed at once.
pub(super) fn is_cut(error: &ExecutionError) -> bool {
    matches!(error, ExecutionError::LastAttemptError(RequestAttemptError::BrokenConnectionError(_)))
}

/// The database understood it, and will never do it.
pub(super) fn is_refused(said: &DbError) -> bool {
    matches!(
        said,
        DbError::SyntaxError
            | DbError::Invalid
            | DbError::AlreadyExists { .. }
            | DbError::FunctionFailure { .. }
            | DbError::AuthenticationError
            | DbError::Unauthorized
            | DbError::ConfigError
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scylla::{errors::WriteType, statement::Consistency};

    use super::*;

    fn said(error: DbError) -> ExecutionError {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, String::new()))
    }

    fn timeout() -> ExecutionError {
        let consistency = Consistency::LocalQuorum;
        said(DbError::WriteTimeout { consistency, received: 1, required: 2, write_type: WriteType::BatchLog })
    }

    #[test]
    fn nothing_is_called_undone_that_may_be_done() {
        for unknown in [timeout(), said(DbError::ServerError), ExecutionError::RequestTimeout(Duration::from_secs(1))] {
            assert!(matches!(write(unknown), Error::Unknown(_)));
        }
        let alive = DbError::Unavailable { consistency: Consistency::LocalQuorum, required: 2, alive: 1 };
        for undone in [said(alive), said(DbError::IsBootstrapping), ExecutionError::EmptyPlan] {
            assert!(matches!(write(undone), Error::Unavailable(_)));
        }
        assert!(matches!(write(said(DbError::Overloaded)), Error::Busy));
        assert!(matches!(write(said(DbError::Invalid)), Error::Internal(_)));
        assert!(matches!(read(timeout()), Error::Unavailable(_)));
    }
}
