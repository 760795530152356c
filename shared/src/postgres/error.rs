//! Errors of database calls, and which of them are worth a retry.

use std::io;

use super::{citus, not_ready::NotReady, statements};

/// Error of a database call, classified by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another transaction interfered (serialization failure, deadlock, same unique key).
    ///
    /// Nothing was done, and the same transaction may succeed when it is retried.
    #[error("the transaction conflicted with another one")]
    Conflict(#[source] sqlx::Error),
    /// Another transaction has committed on one server, and not yet on another one (Citus).
    ///
    /// Nothing was done, and the same transaction succeeds a moment later.
    #[error("another transaction is committed in part")]
    PartlyCommitted,
    /// Another transaction held a lock for longer than the lock timeout. Nothing was done.
    #[error("another transaction holds a lock")]
    Locked(#[source] sqlx::Error),
    /// The database can't be reached, or an operator cancelled the statement. Nothing was done.
    ///
    /// It may be starting or stopping, or have no connection left.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The database can't be used until its operator acts. Nothing was done.
    ///
    /// The operator must admit this program, grant it privileges, or free disk space.
    #[error("the database can't be used until its operator intervenes")]
    NeedsOperator(#[source] sqlx::Error),
    /// The database lacks something that this program needs. Nothing was done.
    #[error(transparent)]
    NotReady(NotReady),
    /// A statement must be prepared again, because something that it refers to was changed.
    ///
    /// Nothing was done, and older connections are not used again.
    #[error("a prepared statement is no longer valid")]
    Stale(#[source] sqlx::Error),
    /// The connection was lost during COMMIT, so the transaction may be committed or not.
    ///
    /// It is never retried blindly.
    #[error("the connection was lost during COMMIT")]
    OutcomeUnknown(#[source] sqlx::Error),
    /// A defect of this program or of the data.
    #[error("unexpected database error")]
    Unexpected(#[source] sqlx::Error),
    /// A guarded statement wrote another number of rows than was decided under the lock.
    ///
    /// This is a defect, and the transaction was rolled back.
    #[error("{what}: expected to write {expected} rows, wrote {actual}")]
    RowCountMismatch {
        /// Name of the rows, for messages.
        what: &'static str,
        /// Number of rows that was decided.
        expected: usize,
        /// Number of rows that the statement wrote.
        actual: u64,
    },
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default().into_owned();
                Self::of_code(&code, error)
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            _ => Self::Unexpected(error),
        }
    }
}

impl Error {
    /// Classifies an error by its SQLSTATE, for each class in appendix A of the PostgreSQL manual.
    ///
    /// Classes that are not listed here (data, constraints, syntax, program limits, errors that
    /// functions raise, internal errors) are defects.
    fn of_code(code: &str, error: sqlx::Error) -> Self {
        match (code.get(..2).unwrap_or_default(), code) {
            // Serialization failure; deadlock; another transaction wrote the same unique key at the
            // same moment; the snapshot is too old.
            (_, "40000" | "40001" | "40P01" | "23505") | ("72", _) => Self::Conflict(error),
            (_, "55P03") => Self::Locked(error),
            _ if statements::are_stale(&error) => {
                statements::forget();
                Self::Stale(error)
            }
            // Undefined table, column, function or schema: the database has another schema than
            // this program needs.
            (_, "42P01" | "42703" | "42883") | ("3F", _) => Self::NotReady(NotReady::Object(error)),
            // Roles and passwords; databases; privileges; no disk space or memory left; not in the
            // required state, such as a database that accepts no connections; broken disks and
            // files; configuration files.
            ("0L" | "0P" | "28" | "3D" | "53" | "55" | "58" | "F0", _) | (_, "42501")
                if code != TOO_MANY_CONNECTIONS =>
            {
                Self::NeedsOperator(error)
            }
            // Connection failures; operators who cancel, stop, start or drop, and statements that
            // timed out; too many connections; idle, or in a transaction, for too long, for example
            // because the host was suspended; the server no longer accepts writes.
            ("08" | "57", _) | (_, TOO_MANY_CONNECTIONS | "25P03" | "25P04" | "25006") => {
                Self::Unavailable(error)
            }
            _ if citus::lost_a_server(&error) => Self::Unavailable(error),
            _ => Self::Unexpected(error),
        }
    }

    /// Whether a retry of the same transaction can help and can do no harm.
    ///
    /// The caller has already waited if the pool had no connection to lend, or if a lock or a
    /// statement timed out. It should not wait twice.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Conflict(_) | Self::PartlyCommitted | Self::Stale(_) => true,
            Self::Unavailable(error) => !has_waited(error),
            Self::Locked(_)
            | Self::NeedsOperator(_)
            | Self::NotReady(_)
            | Self::OutcomeUnknown(_)
            | Self::Unexpected(_)
            | Self::RowCountMismatch { .. } => false,
        }
    }

    /// Whether a failed read is worth an immediate retry.
    ///
    /// Its statement must be prepared again, or an operator cancelled it.
    pub(super) fn is_gone_at_once(&self) -> bool {
        match self {
            Self::Stale(_) => true,
            Self::Unavailable(error) => is_cancelled_by_hand(error),
            _ => false,
        }
    }

    /// Returns why an operator has to act before the database can be used; none for other errors.
    ///
    /// Clients may read the text.
    #[must_use]
    pub fn operators_reason(&self) -> Option<String> {
        match self {
            Self::NotReady(reason) => Some(reason.to_string()),
            Self::NeedsOperator(error) => {
                let code = error.as_database_error()?.code().unwrap_or_default();
                Some(format!("{} (SQLSTATE {code})", operators_matter(&code)))
            }
            _ => None,
        }
    }
}

const TOO_MANY_CONNECTIONS: &str = "53300";
const QUERY_CANCELED: &str = "57014";

/// Describes an error that needs an operator.
fn operators_matter(code: &str) -> &'static str {
    match (code.get(..2).unwrap_or_default(), code) {
        ("28" | "0L" | "0P", _) => "the database refuses this program's role or password",
        ("3D", _) => "there is no database with this name",
        (_, "42501") => "this program's role lacks a privilege that it needs",
        (_, "53100") => "the database's disk is full",
        (_, "53200") => "the database is out of memory",
        ("53", _) => "the database has reached a limit of its configuration",
        ("58", _) => "the database can't read or write its files",
        ("F0", _) => "the database's configuration file is wrong",
        _ => "the database is not in a usable state",
    }
}

fn has_waited(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::TimedOut,
        sqlx::Error::Database(database) => {
            database.code().as_deref() == Some(QUERY_CANCELED) && !is_cancelled_by_hand(error)
        }
        _ => false,
    }
}

/// Whether an operator cancelled the statement (`pg_cancel_backend`).
///
/// That has the same code as a statement timeout.
///
/// Only the text distinguishes them. In another language than English the error counts as a
/// timeout, and is not retried.
fn is_cancelled_by_hand(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some(QUERY_CANCELED) && error.message().contains("user request")
    })
}

/// Fails the transaction if a guarded statement did not write exactly the rows that were decided.
///
/// # Errors
///
/// Fails with [`Error::RowCountMismatch`] if `actual` differs from `expected`.
pub fn expect_rows(what: &'static str, expected: usize, actual: u64) -> Result<(), Error> {
    if u64::try_from(expected) == Ok(actual) {
        return Ok(());
    }
    Err(Error::RowCountMismatch {
        what,
        expected,
        actual,
    })
}

/// Returns the next row that a guarded statement wrote, or fails the transaction if there is none.
///
/// # Errors
///
/// Fails with [`Error::RowCountMismatch`] if there is none.
pub fn expect_row<Row>(what: &'static str, row: Option<Row>) -> Result<Row, Error> {
    row.ok_or(Error::RowCountMismatch {
        what,
        expected: 1,
        actual: 0,
    })
}

#[cfg(test)]
mod tests;
