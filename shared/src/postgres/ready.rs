//! Readiness of a database for this program: schema, the queue's tables, and writes.
//!
//! A program knows the newest migration that it was built with. Each migration that breaks older
//! programs raises `schema_compatibility.understood_from`. So a database can be newer than a
//! program that still understands it, as in a rolling upgrade.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Database, Error, migrate::MIGRATIONS};

/// Reason why a database is not ready, and what to do about it. Clients may read it.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// The database was never migrated.
    #[error("the database has no tables of this program yet: run `ticketing migrate`")]
    NoSchema,
    /// The database's schema is older than this program.
    #[error(
        "the database's schema has version {applied}, older than the {needed} that this program needs: run `ticketing migrate` of this version"
    )]
    Older {
        /// Newest migration that was applied.
        applied: i64,
        /// Newest migration that this program knows.
        needed: i64,
    },
    /// The database's schema is newer, and this program no longer understands it.
    #[error(
        "the database's schema needs a program of version {understood_from} or later, and this one has {own}: run a newer version of this program"
    )]
    Newer {
        /// Oldest program that understands the schema, by its newest migration.
        understood_from: i64,
        /// Newest migration that this program knows.
        own: i64,
    },
    /// The database lacks the queue's tables.
    #[error(
        "the database lacks the queue's tables (schema apalis): run `ticketing migrate`, or restore them from the backup"
    )]
    NoQueue,
    /// The database accepts no writes.
    #[error("the database accepts no writes: it is a standby")]
    ReadOnly,
    /// The database can be queried, but the last transaction could not write.
    #[error("the database accepts no writes: {reason}")]
    RefusesWrites {
        /// The reason, in words that clients may read.
        reason: String,
    },
    /// The database lacks a table, column or function that was used.
    #[error(
        "the database lacks a table, column or function that this program needs: run `ticketing migrate`"
    )]
    Object(#[source] sqlx::Error),
}

/// Returns the newest migration that this program was built with.
fn own_version() -> i64 {
    MIGRATIONS
        .iter()
        .map(|m| m.version)
        .max()
        .unwrap_or_default()
}

/// Reason why the last transaction could not write, if only an operator can help.
///
/// The disk may be full, for example.
///
/// No read would reveal it.
#[derive(Debug, Default)]
pub struct LastWrite {
    refused: Mutex<Option<(Instant, String)>>,
}

/// Time for which a refused write counts.
///
/// A process that is not ready may get no requests. So after this time it counts as ready, and the
/// next request finds out.
const REFUSAL_COUNTS: Duration = Duration::from_secs(5);

impl LastWrite {
    pub(super) fn refused(&self, error: &Error) {
        // Anything else that a database lacks is detected without a write.
        if let (Error::NeedsOperator(_), Some(reason)) = (error, error.operators_reason()) {
            *self.lock() = Some((Instant::now(), reason));
        }
    }

    pub(super) fn succeeded(&self) {
        *self.lock() = None;
    }

    fn refusal(&self) -> Option<String> {
        let refused = self.lock();
        let (at, reason) = refused.as_ref()?;
        (at.elapsed() < REFUSAL_COUNTS).then(|| reason.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks that the database answers and that this program can work with it. Makes one attempt.
///
/// # Errors
///
/// Fails with [`Error::NotReady`] if this program can't work with the database, and with another
/// error if the database can't be queried.
pub async fn ready(database: &Database) -> Result<(), Error> {
    check(database, own_version()).await
}

async fn check(database: &Database, own: i64) -> Result<(), Error> {
    // Not checked at compile time, because some of these tables may not exist.
    let found: Result<(Option<i64>, i64, bool, bool), sqlx::Error> = sqlx::query_as(
        "SELECT (SELECT max(version) FROM _sqlx_migrations WHERE success),
                (SELECT understood_from FROM schema_compatibility),
                to_regclass('apalis.jobs') IS NOT NULL AND to_regclass('apalis.workers') IS NOT NULL,
                pg_is_in_recovery()",
    )
    .fetch_one(&database.pool)
    .await;
    let (applied, understood_from, has_queue, is_standby) = match found.map_err(Error::from) {
        Err(Error::NotReady(_)) => return Err(Error::NotReady(NotReady::NoSchema)),
        found => found?,
    };
    let applied = applied.unwrap_or_default();
    let reason = if applied < own {
        NotReady::Older {
            applied,
            needed: own,
        }
    } else if understood_from > own {
        NotReady::Newer {
            understood_from,
            own,
        }
    } else if !has_queue {
        NotReady::NoQueue
    } else if is_standby {
        NotReady::ReadOnly
    } else if let Some(reason) = database.last_write.refusal() {
        NotReady::RefusesWrites { reason }
    } else {
        return Ok(());
    };
    Err(Error::NotReady(reason))
}
