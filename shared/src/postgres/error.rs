//! How a database call fails, and when it is worth a retry.

use std::io;

use super::citus;

/// How a database call failed, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another transaction was in the way (serialization failure, deadlock, same unique key). Nothing was done; the same
    /// transaction may well succeed when it is run again.
    #[error("the transaction collided with another one")]
    Conflict(#[source] sqlx::Error),
    /// Somebody else kept a lock for longer than it was waited for. Nothing was done.
    #[error("another transaction keeps a lock")]
    Locked(#[source] sqlx::Error),
    /// The database can't be reached, is starting or stopping, or has no connection left. Nothing was done.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The connection was lost during COMMIT: it may have been done or not. Never retried blindly.
    #[error("the connection was lost during COMMIT")]
    OutcomeUnknown(#[source] sqlx::Error),
    /// A defect of this program or of the data.
    #[error("unexpected database error")]
    Unexpected(#[source] sqlx::Error),
    /// A guarded statement touched another number of rows than was decided under the lock: a defect, and
    /// the transaction was rolled back.
    #[error("{what}: {expected} rows were to be written, {actual} were")]
    Drift {
        /// What was being written.
        what: &'static str,
        /// Rows that the decision named.
        expected: usize,
        /// Rows that the statement wrote.
        actual: u64,
    },
}

const STATEMENT_TIMEOUT: &str = "57014";

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        match (&error, code.as_deref()) {
            // 23505: another transaction wrote the same unique key at the same moment.
            (_, Some("40001" | "40P01" | "23505")) => Self::Conflict(error),
            (_, Some("55P03")) => Self::Locked(error),
            // 57014: took too long; 25P03: was idle for too long, as when its host was suspended; 25006: the server takes
            // no writes any more; 57P01..57P03: shut down, crashed, starting; 53300: too many connections.
            (
                _,
                Some(STATEMENT_TIMEOUT | "25P03" | "25006" | "57P01" | "57P02" | "57P03" | "53300"),
            ) => Self::Unavailable(error),
            // 08: the connection.
            (_, Some(code)) if code.starts_with("08") => Self::Unavailable(error),
            _ if citus::lost_a_server(&error) => Self::Unavailable(error),
            (
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed,
                _,
            ) => Self::Unavailable(error),
            _ => Self::Unexpected(error),
        }
    }
}

impl Error {
    /// Whether running the same transaction again can help and can do no harm. A pool without a connection to
    /// give, a lock and a statement that took too long have already made their caller wait, and are not waited for twice.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Conflict(_) => true,
            Self::Unavailable(error) => !has_waited(error),
            Self::Locked(_)
            | Self::OutcomeUnknown(_)
            | Self::Unexpected(_)
            | Self::Drift { .. } => false,
        }
    }
}

fn has_waited(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::TimedOut,
        sqlx::Error::Database(error) => error.code().as_deref() == Some(STATEMENT_TIMEOUT),
        _ => false,
    }
}

/// Fails the transaction when a guarded statement did not write exactly what was decided.
///
/// # Errors
///
/// [`Error::Drift`].
pub fn expect_rows(what: &'static str, expected: usize, actual: u64) -> Result<(), Error> {
    if u64::try_from(expected) == Ok(actual) {
        return Ok(());
    }
    Err(Error::Drift {
        what,
        expected,
        actual,
    })
}
