//! Prepared statements that are no longer valid, such as after a migration changed a column's type.
//!
//! PostgreSQL refuses to run them on their connection for ever. When such an error occurs, the time
//! is recorded, and no [`Database`](super::Database) lends an older connection. The time belongs to
//! the process and not to a pool: a change of the schema affects all connections, and opening them
//! again costs little.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::postgres::PgDatabaseError;

static FORGOTTEN: Mutex<Option<Instant>> = Mutex::new(None);

/// Retires all connections that are open now: they are not lent again.
pub fn forget() {
    *FORGOTTEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

/// Whether a connection of this age may still have statements that are no longer valid.
pub(super) fn may_be_stale(age: Duration) -> bool {
    let forgotten = *FORGOTTEN.lock().unwrap_or_else(PoisonError::into_inner);
    forgotten.is_some_and(|at| age > at.elapsed())
}

/// Whether an error means that a prepared statement is no longer valid.
///
/// It is `cached plan must not change result type`, recognized by the function that raised it,
/// because its code is unspecific and its text depends on the server's language; or the statement
/// does not exist any more.
pub(super) fn are_stale(error: &sqlx::Error) -> bool {
    const FEATURE_NOT_SUPPORTED: &str = "0A000";
    const NO_SUCH_STATEMENT: &str = "26000";
    let Some(error) = error.as_database_error() else {
        return false;
    };
    let is_changed = |error: &PgDatabaseError| error.routine() == Some("RevalidateCachedQuery");
    match error.code().as_deref() {
        Some(NO_SUCH_STATEMENT) => true,
        Some(FEATURE_NOT_SUPPORTED) => error
            .try_downcast_ref::<PgDatabaseError>()
            .is_some_and(is_changed),
        _ => false,
    }
}
