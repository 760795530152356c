//! Fails the holds that have run out and restores their seats.

use shared::{
    booking::expire::{self, Outcome},
    jobs::ExpireBookings,
    postgres::{Database, Error, Session},
};
use tokio::sync::Semaphore;

use crate::supervise::JobError;

/// Places for jobs that wait for a show which somebody keeps locked. The other jobs that need it give their turn up at once,
/// so that those for other shows get one.
static WAITING: Semaphore = Semaphore::const_new(2);

/// Runs the job: safe to run twice, early, late, or for bookings that are resolved or unknown.
///
/// # Errors
///
/// [`JobError::Snooze`] until the next deadline while some of the bookings are still held;
/// [`JobError::Retry`] when the database fails or somebody keeps a show locked.
pub async fn run(database: Database, job: ExpireBookings) -> Result<(), JobError> {
    let outcome = expire(&database, &job)
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

async fn expire(database: &Database, job: &ExpireBookings) -> Result<Outcome, Error> {
    let tried = expire::expire(&mut Session::new(database).impatient(), job).await;
    match (tried, WAITING.try_acquire()) {
        (Err(Error::Locked(_)), Ok(_place)) => {
            expire::expire(&mut Session::new(database), job).await
        }
        (result, _) => result,
    }
}
