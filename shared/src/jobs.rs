//! Background jobs: the queues' names, the payloads, and how jobs are enqueued.
//!
//! A payload holds ids only. Delivery is at least once, so that every handler re-reads the state it acts on.

use apalis_core::task::builder::TaskBuilder;
use apalis_postgres::PostgresStorage;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};

use crate::{booking::Booking, postgres};

/// Fails the named holds once they have run out. One job per committed batch of bookings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpireBookings {
    /// The bookings that were reserved together.
    pub booking_ids: Vec<i64>,
}

impl ExpireBookings {
    /// The queue's name, also in `apalis.jobs.job_type`.
    pub const QUEUE: &str = "expire-bookings";
    /// How often a failing job is run before it is dead. With the worker's backoff that takes about half an hour;
    /// the janitor's sweep returns the seats long before.
    const MAX_ATTEMPTS: usize = 12;
}

/// Enqueues the job that will expire these bookings, in the transaction that writes them: both exist or
/// neither does. It is due at the earliest of their deadlines; the worker puts it back for later ones.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn enqueue_expiry(
    tx: &mut PgConnection,
    bookings: impl Iterator<Item = &Booking>,
) -> Result<(), postgres::Error> {
    let (booking_ids, deadlines): (Vec<i64>, Vec<DateTime<Utc>>) =
        bookings.map(|b| (b.id, b.expires_at)).unzip();
    let Some(first_deadline) = deadlines.into_iter().min() else {
        return Ok(());
    };
    let payload = serde_json::to_vec(&ExpireBookings { booking_ids })
        .map_err(|error| sqlx::Error::Encode(error.into()))?;
    let task = TaskBuilder::new(payload)
        .run_at_timestamp(whole_second_not_before(first_deadline))
        .max_attempts(ExpireBookings::MAX_ATTEMPTS)
        .build();
    apalis_postgres::queries::push_tasks(tx, ExpireBookings::QUEUE, vec![task])
        .await
        .map_err(from_apalis)
}

/// apalis keeps `run_at` in whole seconds. Rounded up, a job is never early and less than a second late.
fn whole_second_not_before(instant: DateTime<Utc>) -> u64 {
    let seconds = instant.timestamp() + i64::from(instant.timestamp_subsec_nanos() > 0);
    u64::try_from(seconds).unwrap_or(0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_never_due_before_the_deadline() {
        let whole = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let just_after = DateTime::from_timestamp(1_700_000_000, 1_000).unwrap();
        assert_eq!(whole_second_not_before(whole), 1_700_000_000);
        assert_eq!(whole_second_not_before(just_after), 1_700_000_001);
    }
}
