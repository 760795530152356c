//! Fails the holds that have run out and restores their seats.

use std::{array, collections::BTreeSet};

use shared::{
    booking::expire::{self, Outcome},
    jobs::ExpireBookings,
    postgres::{Database, Error, Session},
};
use tokio::sync::{Mutex, Semaphore};

use crate::supervise::JobError;

/// Most bookings of a show that are remembered to have failed ahead of their jobs.
const MAX_AHEAD: usize = 20_000;

/// The jobs of one worker, which run side by side, and what they know of each other.
pub struct Jobs {
    /// The jobs of a show take turns, because they would wait for each other in the database anyway. Each show has one of these,
    /// by its id. It holds the bookings that failed ahead of their jobs, which then have nothing to do: in a big sale hundreds
    /// of jobs are due in the same second, and most of them end here, without asking the database.
    turns: [Mutex<BTreeSet<i64>>; 64],
    /// Places for jobs that wait for a show which somebody keeps locked. The other jobs that need it give their turn up at
    /// once, so that those for other shows get one.
    waiting: Semaphore,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            turns: array::from_fn(|_| Mutex::default()),
            waiting: Semaphore::new(2),
        }
    }
}

impl Jobs {
    /// Runs the job: safe to run twice, early, late, or for bookings that are resolved or unknown.
    ///
    /// # Errors
    ///
    /// [`JobError::Snooze`] until the next deadline while some of the bookings are still held;
    /// [`JobError::Retry`] when the database fails or somebody keeps a show locked.
    pub async fn run(&self, database: &Database, job: ExpireBookings) -> Result<(), JobError> {
        let outcome = self
            .expire(database, job)
            .await
            .map_err(|error| JobError::Retry(error.into()))?;
        if !outcome.expired.is_empty() {
            tracing::info!(expired = outcome.expired.len(), "holds ran out");
        }
        match outcome.next_deadline {
            Some(deadline) => Err(JobError::Snooze(deadline)),
            None => Ok(()),
        }
    }

    async fn expire(&self, database: &Database, mut job: ExpireBookings) -> Result<Outcome, Error> {
        let tried = match job.show_id {
            Some(show_id) => self.expire_in_turn(database, show_id, &mut job).await,
            None => expire::expire(&mut Session::new(database).impatient(), &job).await,
        };
        match (tried, self.waiting.try_acquire()) {
            (Err(Error::Locked(_)), Ok(_place)) => {
                expire::expire(&mut Session::new(database), &job).await
            }
            (result, _) => result,
        }
    }

    /// Leaves of the job what no other one has done.
    async fn expire_in_turn(
        &self,
        database: &Database,
        show_id: i64,
        job: &mut ExpireBookings,
    ) -> Result<Outcome, Error> {
        let turn = usize::try_from(show_id.unsigned_abs()).unwrap_or_default() % self.turns.len();
        let mut ahead = self.turns[turn].lock().await;
        job.booking_ids.retain(|id| !ahead.remove(id));
        if job.booking_ids.is_empty() {
            return Ok(Outcome::default());
        }
        let outcome = expire::expire(&mut Session::new(database).impatient(), job).await?;
        let named = |id: &&i64| job.booking_ids.contains(id);
        ahead.extend(outcome.expired.iter().filter(|id| !named(id)));
        // Another worker may have their jobs.
        while ahead.len() > MAX_AHEAD {
            ahead.pop_first();
        }
        Ok(outcome)
    }
}
