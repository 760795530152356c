//! Background jobs: the queues' names, the payloads, and when jobs are run again.
//!
//! A payload holds ids only. Delivery is at least once, so that every handler re-reads the state it acts on.

use apalis_postgres::PostgresStorage;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use ulid::Ulid;

use crate::postgres;

/// Fails the named holds once they have run out. One job per committed batch of bookings, enqueued by
/// [`reserve`](crate::booking::reserve) in the statement that writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpireBookings {
    /// Their show, if it is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_id: Option<i64>,
    /// The bookings that were reserved together.
    pub booking_ids: Vec<i64>,
}

impl ExpireBookings {
    /// The queue's name, also in `apalis.jobs.job_type`.
    pub const QUEUE: &str = "expire-bookings";
    /// How often a failing job is run before it is dead. With the worker's backoff that takes about half an hour;
    /// the janitor's sweep returns the seats long before.
    pub(crate) const MAX_ATTEMPTS: i32 = 12;
}

/// All queues of this program.
pub const QUEUES: [&str; 1] = [ExpireBookings::QUEUE];

/// An id for a new job; apalis wants a ULID. It begins with the time at which the job's bookings are made, which is how
/// [`inspect`](crate::queue::inspect) finds the jobs of a booking.
pub(crate) fn new_id(made_at: DateTime<Utc>) -> String {
    Ulid::from_datetime(made_at.into()).to_string()
}

/// Moves the time at which a job is run next, while it is running. apalis itself would run a job that failed or was
/// put back again at once.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn reschedule(pool: &PgPool, job_id: &str, run_at: RunAt) -> Result<(), postgres::Error> {
    let (at, delay_seconds) = match run_at {
        RunAt::Instant(at) => (Some(at), None),
        RunAt::After(delay) => (None, Some(delay.as_secs_f64())),
    };
    // To be too early is no failure: it gets the attempt back that this run takes.
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

/// When a job is to run, on the database's clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RunAt {
    /// At this instant, because it was too early.
    Instant(DateTime<Utc>),
    /// This long after now, because it failed.
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
