//! Fails the holds that have run out and restores their seats.

use shared::{booking::expire, jobs::ExpireBookings, postgres::Session};
use sqlx::PgPool;

use crate::supervise::JobError;

/// Runs the job: safe to run twice, early, late, or for bookings that are resolved or unknown.
///
/// # Errors
///
/// [`JobError::Snooze`] until the next deadline while some of the bookings are still held;
/// [`JobError::Retry`] when the database fails.
pub async fn run(pool: PgPool, job: ExpireBookings) -> Result<(), JobError> {
    let mut session = Session::new(&pool);
    let mut expired = 0;
    let next_deadline = loop {
        let outcome = expire::expire(&mut session, &job.booking_ids)
            .await
            .map_err(|error| JobError::Retry(error.into()))?;
        expired += outcome.expired;
        if outcome.expired < expire::MAX_AT_ONCE {
            break outcome.next_deadline;
        }
    };
    if expired > 0 {
        tracing::info!(expired, "holds ran out");
    }
    match next_deadline {
        Some(deadline) => Err(JobError::Snooze(deadline)),
        None => Ok(()),
    }
}
