//! Prepared statements that are no longer right, such as after a migration changed the type of a column: PostgreSQL then
//! refuses to run them on this connection for ever.
//!
//! Whoever sees such an error marks this instant, and no [`Database`](super::Database) lends a connection that is older. It is of the process
//! and not of a pool: a change of the schema is met on all connections, and to make them anew costs little.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::postgres::PgDatabaseError;

use super::Error;

static FORGOTTEN: Mutex<Option<Instant>> = Mutex::new(None);

/// Lets no connection be lent again that is older than this moment.
pub fn forget() {
    *FORGOTTEN.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

/// Whether a connection of this age may still have statements that are not right.
pub(super) fn may_be_stale(age: Duration) -> bool {
    let forgotten = *FORGOTTEN.lock().unwrap_or_else(PoisonError::into_inner);
    forgotten.is_some_and(|at| age > at.elapsed())
}

/// Whether this error says so: `cached plan must not change result type`, told by where it comes from, since its code says
/// nothing and its text depends on the server's language; or the statement is not there any more.
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

/// Reads, and reads once more where that helps at once: a statement had to be prepared anew, or somebody cancelled it. What a
/// [transaction](super::Session::transact) reads is run again with it; this is for reads outside of one.
///
/// # Errors
///
/// Those of the last read.
pub async fn read<T, Asking>(mut ask: impl FnMut() -> Asking) -> Result<T, Error>
where
    Asking: Future<Output = Result<T, Error>>,
{
    match ask().await {
        Err(error) if error.is_gone_at_once() => ask().await,
        result => result,
    }
}
