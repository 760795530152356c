//! Job that fails expired holds and returns their seats.

use std::{array, collections::BTreeSet};

use shared::{
    booking::expire::{self, Outcome},
    id::{BookingId, ShowId},
    jobs::ExpireBookings,
    postgres::{Database, Error, Session},
};
use tokio::sync::{Mutex, Semaphore};

use crate::supervise::JobError;

/// Maximum number of bookings in a turn that are remembered to have failed ahead of their jobs.
const MAX_AHEAD: usize = 20_000;

/// State that the concurrent jobs of one worker share.
pub struct ExpireBookingsHandler {
    /// Turns of the jobs, chosen by the show's id.
    ///
    /// The jobs of a show would wait for each other in the database anyway.
    ///
    /// A turn holds the bookings that failed ahead of their jobs, which then have nothing to do. In
    /// a big sale hundreds of jobs are due in the same second, and most of them end here, without a
    /// database call.
    turns: [Mutex<BTreeSet<BookingId>>; 64],
    /// Permits for jobs that wait for a show which another transaction keeps locked.
    ///
    /// Other jobs that need the show give up their turn at once, so that jobs for other shows get
    /// one.
    waiting: Semaphore,
}

impl Default for ExpireBookingsHandler {
    fn default() -> Self {
        Self {
            turns: array::from_fn(|_| Mutex::default()),
            waiting: Semaphore::new(2),
        }
    }
}

impl ExpireBookingsHandler {
    /// Runs a job. It may run twice, early, late, or for bookings that are resolved or unknown.
    ///
    /// # Errors
    ///
    /// Fails with [`JobError::Snooze`] until the next deadline while some of the bookings are still
    /// held, and with [`JobError::Retry`] if the database fails or another transaction keeps a show
    /// locked.
    pub async fn run(&self, database: &Database, job: ExpireBookings) -> Result<(), JobError> {
        let outcome = self
            .expire(database, job)
            .await
            .map_err(|error| JobError::Retry(error.into()))?;
        if !outcome.expired.is_empty() {
            tracing::info!(expired = outcome.expired.len(), "holds expired");
        }
        match outcome.next_deadline {
            Some(deadline) => Err(JobError::Snooze(deadline)),
            None => Ok(()),
        }
    }

    async fn expire(&self, database: &Database, mut job: ExpireBookings) -> Result<Outcome, Error> {
        let tried = match job.show_id {
            Some(show_id) => self.expire_in_turn(database, show_id, &mut job).await,
            None => {
                expire::expire(&mut Session::new(database).with_short_lock_timeout(), &job).await
            }
        };
        match (tried, self.waiting.try_acquire()) {
            (Err(Error::Locked(_)), Ok(_permit)) => {
                expire::expire(&mut Session::new(database), &job).await
            }
            (result, _) => result,
        }
    }

    /// Expires the bookings of a job in its turn, except those that another job has failed already.
    ///
    /// These are removed from `job`.
    async fn expire_in_turn(
        &self,
        database: &Database,
        show_id: ShowId,
        job: &mut ExpireBookings,
    ) -> Result<Outcome, Error> {
        let turn = usize::try_from(show_id.0.unsigned_abs()).unwrap_or_default() % self.turns.len();
        let mut ahead = self.turns[turn].lock().await;
        job.booking_ids.retain(|id| !ahead.remove(id));
        if job.booking_ids.is_empty() {
            return Ok(Outcome::default());
        }
        let outcome =
            expire::expire(&mut Session::new(database).with_short_lock_timeout(), job).await?;
        let named = |id: &&BookingId| job.booking_ids.contains(id);
        ahead.extend(outcome.expired.iter().filter(|id| !named(id)));
        // Another worker may have the jobs of these bookings, so they may never be removed.
        while ahead.len() > MAX_AHEAD {
            ahead.pop_first();
        }
        Ok(outcome)
    }
}
