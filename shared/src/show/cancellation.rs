//! Cancelled shows.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    id::ShowId,
    jobs::{self, CancelShow, Job},
    postgres,
};

/// Cancellation of a show. A job cancels its bookings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancellation {
    /// Time at which the show was cancelled.
    pub cancelled_at: DateTime<Utc>,
    /// Seats that were in use at that time.
    pub seats: i32,
    /// Seats that are still in use: 0 once all bookings are cancelled.
    pub remaining_seats: i32,
}

/// Preview of a cancellation: the bookings that it would cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preview {
    /// Number of holds.
    pub pending_bookings: i64,
    /// Number of confirmed bookings.
    pub confirmed_bookings: i64,
    /// Seats of these bookings.
    pub seats: i64,
}

/// Returns what cancelling a show would cancel now. Changes nothing.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn preview(
    database: impl sqlx::PgExecutor<'_>,
    show_id: ShowId,
) -> Result<Option<Preview>, postgres::Error> {
    let preview = sqlx::query_as!(
        Preview,
        r#"SELECT pending AS "pending_bookings!", confirmed AS "confirmed_bookings!",
                  seats - available_seats - overdue_seats AS "seats!"
           FROM (SELECT seats, available_seats FROM shows WHERE id = $1 ORDER BY generation DESC LIMIT 1) AS show
           CROSS JOIN (
               SELECT coalesce(sum(held) FILTER (WHERE expires_at > now()), 0) AS pending,
                      coalesce(sum(held_seats) FILTER (WHERE expires_at <= now()), 0) AS overdue_seats,
                      coalesce(sum(confirmed), 0) AS confirmed
               FROM batches WHERE show_id = $1 AND (has_held OR has_confirmed)) AS counted"#,
        show_id as ShowId,
    )
    .fetch_optional(database)
    .await?;
    Ok(preview)
}

/// Enqueues the job that cancels the bookings of a show, made `now`, unless there is one.
pub(super) async fn enqueue(
    tx: &mut PgConnection,
    show_id: ShowId,
    now: DateTime<Utc>,
) -> Result<(), postgres::Error> {
    let job = CancelShow { show_id };
    let payload = serde_json::to_vec(&job).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let is_enqueued = sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM apalis.jobs
               WHERE job_type = $1 AND job = $2 AND (status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts))
               UNION ALL
               SELECT FROM apalis.jobs
               WHERE job_type = $1 AND job = $2 AND (status = 'Queued' OR status = 'Running')) AS "is_enqueued!""#,
        CancelShow::QUEUE,
        payload,
    )
    .fetch_one(&mut *tx)
    .await?;
    if is_enqueued {
        return Ok(());
    }
    jobs::enqueue(tx, &job, now, now).await
}
