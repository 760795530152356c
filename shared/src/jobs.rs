//! Background jobs: queue names, payloads, and when jobs are run again.
//!
//! A payload holds ids only. Delivery is at least once, so every handler re-reads the state that it
//! acts on.

use apalis_postgres::PostgresStorage;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use ulid::Ulid;

use crate::postgres;

/// Payload of the job that fails the named holds once they have expired.
///
/// There is one job for each committed batch of bookings. [`reserve`](crate::booking::reserve)
/// enqueues it in the statement that writes the bookings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpireBookings {
    /// Show of the bookings, if it is the same for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_id: Option<i64>,
    /// Bookings that were reserved together.
    pub booking_ids: Vec<i64>,
}

impl ExpireBookings {
    /// Name of the queue, also in `apalis.jobs.job_type`.
    pub const QUEUE: &str = "expire-bookings";
    /// Number of attempts after which a failing job is dead.
    ///
    /// With the worker's backoff that takes about half an hour; the janitor's sweep frees the seats
    /// long before.
    pub(crate) const MAX_ATTEMPTS: i32 = 12;
}

/// Names of all queues of this program.
pub const QUEUES: [&str; 1] = [ExpireBookings::QUEUE];

/// Creates an id for a new job, a ULID as apalis requires.
///
/// It begins with the time at which the job's bookings are made, by which
/// [`inspect`](crate::queue::inspect) finds the jobs of a booking.
pub(crate) fn new_id(made_at: DateTime<Utc>) -> String {
    Ulid::from_datetime(made_at.into()).to_string()
}

/// Reschedules a job while it is running.
///
/// Apalis itself would at once repeat a job that failed or was put back.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn reschedule(pool: &PgPool, job_id: &str, run_at: RunAt) -> Result<(), postgres::Error> {
    let (at, delay_seconds) = match run_at {
        RunAt::Instant(at) => (Some(at), None),
        RunAt::After(delay) => (None, Some(delay.as_secs_f64())),
    };
    // Running too early is not a failure: the job gets back the attempt that this run uses.
    let is_early = i32::from(at.is_some());
    sqlx::query!(
        "UPDATE apalis.jobs
         SET run_at = coalesce($2, now() + make_interval(secs => $3)), max_attempts = max_attempts + $4
         WHERE id = $1",
        job_id,
        at,
        delay_seconds,
        is_early,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Time at which a job is to run, on the database's clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RunAt {
    /// This instant, because the job ran too early.
    Instant(DateTime<Utc>),
    /// This long after now, because the job failed.
    After(std::time::Duration),
}

/// Creates or updates apalis's own tables (schema `apalis`).
pub(crate) async fn migrate(pool: &PgPool) -> Result<(), postgres::Error> {
    PostgresStorage::setup(pool).await.map_err(from_apalis)
}

fn from_apalis(error: apalis_postgres::Error) -> postgres::Error {
    match error {
        apalis_postgres::Error::Database(error) => error.into(),
        other => sqlx::Error::AnyDriverError(Box::new(other)).into(),
    }
}
