//! Fails the holds that have run out and restores their seats.

use shared::{
    booking::expire,
    jobs::ExpireBookings,
    postgres::{Database, Session},
};

use crate::supervise::JobError;

/// Runs the job: safe to run twice, early, late, or for bookings that are resolved or unknown.
///
/// # Errors
///
/// [`JobError::Snooze`] until the next deadline while some of the bookings are still held;
/// [`JobError::Retry`] when the database fails.
pub async fn run(database: Database, job: ExpireBookings) -> Result<(), JobError> {
    let outcome = expire::expire(&mut Session::new(&database), &job)
        .await
        .map_err(|error| JobError::Retry(error.into()))?;
    if outcome.expired > 0 {
        tracing::info!(expired = outcome.expired, "holds ran out");
    }
    match outcome.next_deadline {
        Some(deadline) => Err(JobError::Snooze(deadline)),
        None => Ok(()),
    }
}
