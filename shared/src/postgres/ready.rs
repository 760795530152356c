//! Readiness of a database for this program: schema, the queue's tables, and writes.
//!
//! A program knows the newest migration that it was built with. Each migration that breaks older
//! programs raises `schema_compatibility.understood_from`. So a database can be newer than a
//! program that still understands it, as in a rolling upgrade.

use super::{database::Database, error::Error, not_ready::NotReady};
use crate::migrations;

/// Checks that the database answers and that this program can work with it. Makes one attempt.
///
/// # Errors
///
/// Fails with [`Error::NotReady`] if this program can't work with the database, and with another
/// error if the database can't be queried.
pub async fn ready(database: &Database) -> Result<(), Error> {
    check(database, migrations::newest()).await
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
