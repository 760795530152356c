//! Background jobs: their kinds, how one is enqueued, and when it is run again.
//!
//! Delivery is at least once, so every handler re-reads the state that it acts on, and a payload
//! holds ids only.

mod cancel_show;
mod expire_bookings;
mod job;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use ulid::Ulid;

pub use self::{cancel_show::CancelShow, expire_bookings::ExpireBookings, job::Job};
use crate::{postgres, telemetry::traces};

/// Names of all queues of this program.
pub const QUEUES: [&str; 2] = [ExpireBookings::QUEUE, CancelShow::QUEUE];

/// Columns of a new job in `apalis.jobs`, except its payload.
pub(crate) struct NewJob {
    /// A ULID, as apalis requires.
    ///
    /// It begins with the time at which the job is made. That of an expiry job is the time of its
    /// bookings, by which [`inspect`](crate::queue::inspect) finds the jobs of a booking.
    pub(crate) id: String,
    pub(crate) queue: &'static str,
    pub(crate) max_attempts: i32,
    pub(crate) run_at: DateTime<Utc>,
    /// W3C trace context of the request that enqueues the job, if it is traced.
    pub(crate) traceparent: Option<String>,
}

impl NewJob {
    /// Returns a job of kind `J` that is made `now` and due at `run_at`.
    pub(crate) fn of_kind<J: Job>(run_at: DateTime<Utc>, now: DateTime<Utc>) -> Self {
        Self {
            id: Ulid::from_datetime(now.into()).to_string(),
            queue: J::QUEUE,
            max_attempts: J::MAX_ATTEMPTS,
            run_at,
            traceparent: traces::traceparent(),
        }
    }
}

/// Enqueues a job in the caller's transaction, made `now`. It exists if and only if that commits.
///
/// On [Citus](crate::postgres::citus) the job's row is on the coordinator. What the transaction does
/// on another server commits together with it only if it inserts bookings there; after an update
/// alone, a crash of the coordinator can lose the job.
///
/// The statements that write bookings enqueue their job by themselves, with the same columns, since
/// a round trip costs much while a show is locked: see `booking/reserve/insert.rs`.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn enqueue<J: Job>(
    tx: &mut PgConnection,
    payload: &J,
    run_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), postgres::Error> {
    let job = NewJob::of_kind::<J>(run_at, now);
    let payload = serde_json::to_vec(payload).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query!(
        "INSERT INTO apalis.jobs (id, job_type, job, max_attempts, run_at, metadata)
         SELECT $1, $2, $3, $4, $5, CASE WHEN $6::text IS NOT NULL THEN hstore('traceparent', $6) END",
        job.id,
        job.queue,
        payload,
        job.max_attempts,
        job.run_at,
        job.traceparent,
    )
    .execute(tx)
    .await?;
    Ok(())
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
