//! Job that cancels the bookings of a cancelled show.

use shared::{
    booking::cancel_show::cancel_bookings_of,
    jobs::CancelShow,
    postgres::{Database, Session},
};

use crate::supervise::JobError;

/// Runs a job. It may run twice, or for a show whose bookings are cancelled.
///
/// # Errors
///
/// Fails with [`JobError::Snooze`] if bookings are left when its turn is over, and with
/// [`JobError::Retry`] if the database fails or another transaction keeps a booking or the show
/// locked.
pub async fn run(database: &Database, job: CancelShow) -> Result<(), JobError> {
    let outcome = cancel_bookings_of(&mut Session::new(database), job.show_id)
        .await
        .map_err(|error| JobError::Retry(error.into()))?;
    tracing::info!(
        show_id = job.show_id.0,
        bookings = outcome.ended,
        "bookings of a show cancelled"
    );
    match outcome.again_at {
        Some(at) => Err(JobError::Snooze(at)),
        None => Ok(()),
    }
}
