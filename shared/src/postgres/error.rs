//! How a database call fails, and when it is worth a retry.

use std::io;

use super::{citus, ready::NotReady, statements};

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
    /// The database can't be reached, is starting or stopping, or has no connection left; or somebody cancelled the statement.
    /// Nothing was done.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// It can't be used until its operator does something: let this program in, allow it what it has to do, make room on the
    /// disk. Nothing was done.
    #[error("the database can't be used until its operator does something")]
    NeedsOperator(#[source] sqlx::Error),
    /// It has not what this program needs. Nothing was done.
    #[error(transparent)]
    NotReady(NotReady),
    /// A statement has to be prepared anew, because what it is about was changed. Nothing was done, and connections of before
    /// are not used again.
    #[error("a prepared statement is no longer right")]
    Stale(#[source] sqlx::Error),
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
    /// Decides on each class of the SQLSTATEs of PostgreSQL's appendix A. Those that are not named here (data, constraints,
    /// syntax, limits of the program, errors that functions raise, internal errors) are defects.
    fn of_code(code: &str, error: sqlx::Error) -> Self {
        match (code.get(..2).unwrap_or_default(), code) {
            // Serialization, deadlock; another transaction wrote the same unique key at the same moment; the
            // snapshot is too old.
            (_, "40000" | "40001" | "40P01" | "23505") | ("72", _) => Self::Conflict(error),
            (_, "55P03") => Self::Locked(error),
            _ if statements::are_stale(&error) => {
                statements::forget();
                Self::Stale(error)
            }
            // Table, column, function or schema: the database has another schema than this program needs.
            (_, "42P01" | "42703" | "42883") | ("3F", _) => Self::NotReady(NotReady::Object(error)),
            // Roles and passwords; databases; permissions. Without disk or memory. Not in the state for it, such as a database
            // that takes no connections. Broken disks and files; configuration files.
            ("0L" | "0P" | "28" | "3D" | "53" | "55" | "58" | "F0", _) | (_, "42501")
                if code != TOO_MANY_CONNECTIONS =>
            {
                Self::NeedsOperator(error)
            }
            // The connection; operators who cancel, stop, start or drop, a statement that took too long; too many
            // connections; idle or in a transaction for too long, as when its host was suspended; the server takes no writes
            // any more.
            ("08" | "57", _) | (_, TOO_MANY_CONNECTIONS | "25P03" | "25P04" | "25006") => {
                Self::Unavailable(error)
            }
            _ if citus::lost_a_server(&error) => Self::Unavailable(error),
            _ => Self::Unexpected(error),
        }
    }

    /// Whether running the same transaction again can help and can do no harm. A pool without a connection to
    /// give, a lock and a statement that took too long have already made their caller wait, and are not waited for twice.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Conflict(_) | Self::Stale(_) => true,
            Self::Unavailable(error) => !has_waited(error),
            Self::Locked(_)
            | Self::NeedsOperator(_)
            | Self::NotReady(_)
            | Self::OutcomeUnknown(_)
            | Self::Unexpected(_)
            | Self::Drift { .. } => false,
        }
    }

    /// Whether a read that failed is worth a second one at once: it met a statement that has to be prepared anew, or somebody
    /// cancelled it.
    pub(super) fn is_gone_at_once(&self) -> bool {
        match self {
            Self::Stale(_) => true,
            Self::Unavailable(error) => is_cancelled_by_hand(error),
            _ => false,
        }
    }

    /// Why the database can't be used until an operator does something, in words that clients may read. None for any other
    /// failure.
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

/// What is wrong, of an error that needs an operator.
fn operators_matter(code: &str) -> &'static str {
    match (code.get(..2).unwrap_or_default(), code) {
        ("28" | "0L" | "0P", _) => "the database refuses this program's role or password",
        ("3D", _) => "there is no database of this name",
        (_, "42501") => "this program's role may not do what it has to",
        (_, "53100") => "the database's disk is full",
        (_, "53200") => "the database is out of memory",
        ("53", _) => "the database has reached a limit of its configuration",
        ("58", _) => "the database can't read or write its files",
        ("F0", _) => "the database's configuration file is wrong",
        _ => "the database is not in a state to work",
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

/// Whether somebody cancelled the statement (`pg_cancel_backend`), which has the same code as one that took too long. Only the
/// text tells: in another language than English it counts as one that took too long, and is not run again.
fn is_cancelled_by_hand(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some(QUERY_CANCELED) && error.message().contains("user request")
    })
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

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, error, fmt};

    use sqlx::error::{DatabaseError, ErrorKind};

    use super::*;

    #[derive(Debug)]
    struct Fake(&'static str, &'static str);

    impl fmt::Display for Fake {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.1)
        }
    }

    impl error::Error for Fake {}

    impl DatabaseError for Fake {
        fn message(&self) -> &str {
            self.1
        }
        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }
        fn as_error(&self) -> &(dyn error::Error + Send + Sync + 'static) {
            self
        }
        fn as_error_mut(&mut self) -> &mut (dyn error::Error + Send + Sync + 'static) {
            self
        }
        fn into_error(self: Box<Self>) -> Box<dyn error::Error + Send + Sync + 'static> {
            self
        }
        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn error(code: &'static str, message: &'static str) -> Error {
        sqlx::Error::Database(Box::new(Fake(code, message))).into()
    }

    #[test]
    fn what_only_an_operator_can_mend_says_so_and_is_not_run_again() {
        for code in [
            "28000", "28P01", "3D000", "42501", "53000", "53100", "53200", "53400", "55000",
            "55006", "58000", "58030", "0P000", "F0000",
        ] {
            let error = error(code, "");
            assert!(
                matches!(error, Error::NeedsOperator(_)),
                "{code}: {error:?}"
            );
            assert!(!error.is_transient(), "{code}");
            let reason = error.operators_reason().unwrap();
            assert!(reason.contains(code), "{reason}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_run_again() {
        for code in ["40001", "40P01", "23505", "72000"] {
            assert!(matches!(error(code, ""), Error::Conflict(_)), "{code}");
        }
        for code in [
            "08006", "57P01", "57P03", "57P04", "57P05", "53300", "25006", "25P04",
        ] {
            let error = error(code, "");
            assert!(matches!(error, Error::Unavailable(_)), "{code}: {error:?}");
            assert!(error.is_transient(), "{code}");
        }
        assert!(error("57014", "canceling statement due to user request").is_transient());
        assert!(!error("57014", "canceling statement due to statement timeout").is_transient());
        assert!(error("26000", "").is_transient());
    }

    #[test]
    fn another_schema_is_not_a_defect_and_what_is_one_says_so() {
        for code in ["42P01", "42703", "42883", "3F000"] {
            assert!(matches!(error(code, ""), Error::NotReady(_)), "{code}");
        }
        for code in [
            "22012", "23514", "0A000", "42601", "42704", "54000", "P0001", "XX000", "XX001",
        ] {
            assert!(matches!(error(code, ""), Error::Unexpected(_)), "{code}");
        }
    }
}
