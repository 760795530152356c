//! Periodic poll of the system, whose cached result serves any number of clients at the same cost.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::{
    postgres::{
        self, Database,
        usage::{self, OldestTransaction},
    },
    queue::{
        JobState,
        inspect::{self, Queue},
    },
    sales::{self, Pulse},
    telemetry::chain,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// Time between two polls, if they are fast.
const INTERVAL: Duration = Duration::from_secs(2);

/// Ratio of the pause after a query to its duration.
///
/// Slow queries run less often, so that each takes at most one part in this many of the time.
pub(super) const PAUSE_RATIO: u32 = 20;

/// Number of polls in the history: half an hour.
const HISTORY_MAX: usize = 900;

/// Polls the system periodically.
pub(super) struct Poller {
    polled: Mutex<Polled>,
    poll_now: Notify,
}

/// Results of the polls so far.
#[derive(Default)]
pub(super) struct Polled {
    /// Result of the last successful poll.
    pub(super) last: Option<Arc<Snapshot>>,
    pub(super) history: VecDeque<Point>,
    /// Why the last poll failed; none if it succeeded.
    pub(super) failure: Option<String>,
}

/// Result of one poll.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Snapshot {
    /// Time of the poll, by the database's clock.
    pub(super) at: DateTime<Utc>,
    /// Bookings per second of all apis since the previous poll.
    bookings_per_second: f64,
    /// Refusals per second of this api since the previous poll.
    refusals_per_second: f64,
    /// State of the sale.
    #[serde(flatten)]
    pub(super) pulse: Pulse,
    /// State of each queue.
    pub(super) queues: Vec<Queue>,
    /// Oldest open transaction of the database.
    pub(super) oldest_transaction: Option<OldestTransaction>,
    /// Refusals of this api so far, for the rate at the next poll.
    #[serde(skip)]
    refusals: u64,
}

/// One poll in the history: the values that change, combined over all queues.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Point {
    pub(super) at: DateTime<Utc>,
    bookings_per_second: f64,
    refusals_per_second: f64,
    overdue_holds: i64,
    expiry_lag_p99_seconds: Option<f64>,
    due_lag_seconds: f64,
    scheduled: i64,
    due: i64,
    running: i64,
    failed: i64,
    done: i64,
    dead: i64,
    done_last_minute: i64,
}

impl From<&Snapshot> for Point {
    fn from(poll: &Snapshot) -> Self {
        let depth = |state| poll.queues.iter().map(|queue| queue.depth[&state]).sum();
        Self {
            at: poll.at,
            bookings_per_second: poll.bookings_per_second,
            refusals_per_second: poll.refusals_per_second,
            overdue_holds: poll.pulse.overdue_holds,
            expiry_lag_p99_seconds: poll.pulse.expiry_lag_p99_seconds,
            due_lag_seconds: poll
                .queues
                .iter()
                .map(|queue| queue.due_lag_seconds)
                .fold(0.0, f64::max),
            scheduled: depth(JobState::Scheduled),
            due: depth(JobState::Due),
            running: depth(JobState::Running),
            failed: depth(JobState::Failed),
            done: depth(JobState::Done),
            dead: depth(JobState::Dead),
            done_last_minute: poll.queues.iter().map(|queue| queue.done_last_minute).sum(),
        }
    }
}

impl Poller {
    /// Starts polling, until `stop` is cancelled.
    pub(super) fn start(database: &Database, stop: &CancellationToken) -> Arc<Self> {
        let poller = Arc::new(Self {
            polled: Mutex::default(),
            poll_now: Notify::new(),
        });
        let (database, stop, polling) = (database.clone(), stop.clone(), poller.clone());
        tokio::spawn(async move { stop.run_until_cancelled(polling.run(&database)).await });
        poller
    }

    /// Triggers a poll at once, so that the effect of an action shows.
    pub(super) fn poll_now(&self) {
        self.poll_now.notify_one();
    }

    /// Returns the result of the last successful poll.
    pub(super) fn last(&self) -> Option<Arc<Snapshot>> {
        self.polled().last.clone()
    }

    pub(super) fn polled(&self) -> MutexGuard<'_, Polled> {
        self.polled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, database: &Database) {
        loop {
            let began = Instant::now();
            let result = poll(database, self.last().as_deref()).await;
            self.remember(result);
            let pause = INTERVAL.max(began.elapsed() * PAUSE_RATIO);
            timeout(pause, self.poll_now.notified()).await.ok();
        }
    }

    fn remember(&self, result: Result<Snapshot, postgres::Error>) {
        let mut polled = self.polled();
        match result {
            Ok(poll) => {
                if polled.history.len() == HISTORY_MAX {
                    polled.history.pop_front();
                }
                polled.history.push_back(Point::from(&poll));
                polled.last = Some(Arc::new(poll));
                polled.failure = None;
            }
            Err(error) => {
                // Logged once per outage, not every 2 s.
                if polled.failure.is_none() {
                    tracing::warn!(error = chain(&error), "cannot poll the database");
                }
                polled.failure = Some(error.to_string());
            }
        }
    }
}

async fn poll(database: &Database, before: Option<&Snapshot>) -> Result<Snapshot, postgres::Error> {
    let pool = &database.pool;
    let pulse = sales::pulse(database).await?;
    let queues = inspect::queues(pool).await?;
    let oldest_transaction = usage::oldest_transaction(pool).await?;
    let refusals = metrics::refusals();
    let per_second = |now: i64, then: i64| {
        let seconds = before.map_or(0.0, |before| (pulse.at - before.at).as_seconds_f64());
        #[expect(clippy::cast_precision_loss, reason = "a rate may be inexact")]
        let difference = (now - then).max(0) as f64;
        if seconds > 0.0 {
            difference / seconds
        } else {
            0.0
        }
    };
    let bookings = before.map_or(pulse.newest_booking, |before| before.pulse.newest_booking);
    let refused = before.map_or(refusals, |before| before.refusals);
    Ok(Snapshot {
        at: pulse.at,
        bookings_per_second: per_second(pulse.newest_booking, bookings),
        refusals_per_second: per_second(refusals.cast_signed(), refused.cast_signed()),
        pulse,
        queues,
        oldest_transaction,
        refusals,
    })
}
