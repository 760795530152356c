//! Whether a database is ready for this program: the schema, the queue's tables, writes.
//!
//! A program knows the newest migration that it was built with. Each migration that breaks older programs raises
//! `schema_compatibility.understood_from`, so that a database can be newer than a program that still understands it, as in a
//! rolling upgrade.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Database, Error, migrate::MIGRATIONS};

/// Why a database is not ready, and what to do. Clients may read it.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// It was never migrated.
    #[error("the database has no tables of this program yet: run `ticketing migrate`")]
    NoSchema,
    /// Its schema is older than this program.
    #[error(
        "the database's schema has version {applied}, older than the {needed} that this program needs: run `ticketing migrate` of this version"
    )]
    Older {
        /// The newest migration that it has.
        applied: i64,
        /// The newest migration that this program knows.
        needed: i64,
    },
    /// Its schema is newer, and no longer understood.
    #[error(
        "the database's schema is understood by programs from version {understood_from} on, and this one has {own}: run a newer version of this program"
    )]
    Newer {
        /// The oldest that understands it.
        understood_from: i64,
        /// The newest migration that this program knows.
        own: i64,
    },
    /// It lacks the queue's tables.
    #[error(
        "the database lacks the queue's tables (schema apalis): run `ticketing migrate`, or restore them from the backup"
    )]
    NoQueue,
    /// It takes no writes.
    #[error("the database takes no writes: it is a standby")]
    ReadOnly,
    /// It answers, but the last transaction could not write.
    #[error("the database takes no writes: {reason}")]
    RefusesWrites {
        /// Why, in words that clients may read.
        reason: String,
    },
    /// Something was asked for that it does not have.
    #[error(
        "the database lacks a table, column or function that this program needs: run `ticketing migrate`"
    )]
    Object(#[source] sqlx::Error),
}

/// The newest migration that this program was built with.
fn own_version() -> i64 {
    MIGRATIONS
        .iter()
        .map(|m| m.version)
        .max()
        .unwrap_or_default()
}

/// Why the last transaction that had begun could not write, if it could not and an operator has to do something, such as
/// make room on the disk: nothing that is read would tell.
#[derive(Debug, Default)]
pub struct LastWrite {
    refused: Mutex<Option<(Instant, String)>>,
}

/// How long a refusal counts. Where nobody sends requests to what is not ready, the next request finds out.
const REFUSAL_COUNTS: Duration = Duration::from_secs(5);

impl LastWrite {
    pub(super) fn refused(&self, error: &Error) {
        // What else a database lacks is seen without writing.
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

/// Answers when the database does and this program can work with it. It asks once.
///
/// # Errors
///
/// [`Error::NotReady`] when it can't; any other one when it can't be asked.
pub async fn ready(database: &Database) -> Result<(), Error> {
    check(database, own_version()).await
}

async fn check(database: &Database, own: i64) -> Result<(), Error> {
    // Not checked when this is built: some of it may not be there.
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
