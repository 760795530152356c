//! Periodic poll of the system, whose cached result serves any number of clients at the same cost.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use shared::{
    postgres::{
        self,
        usage::{self, OldestTransaction},
    },
    queue::{
        JobState,
        inspect::{self, Queue},
    },
    sales::{self, Pulse},
    telemetry::chain,
};
use sqlx::PgPool;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::AdminState;
use crate::{
    input::{
        caller::{Administer, Caller},
        url::Query,
    },
    metrics,
    output::problem::Problem,
};

/// Time between two polls, if they are fast.
const INTERVAL: Duration = Duration::from_secs(2);

/// Ratio of the pause after a poll to its duration.
///
/// Slow polls run less often, so that polling takes at most one part in this many of the time.
pub(super) const SHARE_OF_TIME: u32 = 20;

/// Number of polls in the history: half an hour.
const REMEMBERED: usize = 900;

/// Result of the last poll, and the history of polls.
pub(super) struct Watch {
    seen: Mutex<Seen>,
    look_now: Notify,
}

#[derive(Default)]
struct Seen {
    last: Option<Arc<Snapshot>>,
    history: VecDeque<Point>,
    /// Why the last poll failed; none if it succeeded.
    failure: Option<String>,
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
struct Point {
    at: DateTime<Utc>,
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
    fn from(look: &Snapshot) -> Self {
        let depth = |state| look.queues.iter().map(|queue| queue.depth[&state]).sum();
        Self {
            at: look.at,
            bookings_per_second: look.bookings_per_second,
            refusals_per_second: look.refusals_per_second,
            overdue_holds: look.pulse.overdue_holds,
            expiry_lag_p99_seconds: look.pulse.expiry_lag_p99_seconds,
            due_lag_seconds: look
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
            done_last_minute: look.queues.iter().map(|queue| queue.done_last_minute).sum(),
        }
    }
}

impl Watch {
    /// Starts polling, until `stop` is cancelled.
    pub(super) fn start(pool: &PgPool, stop: &CancellationToken) -> Arc<Self> {
        let watch = Arc::new(Self {
            seen: Mutex::default(),
            look_now: Notify::new(),
        });
        let (pool, stop, looking) = (pool.clone(), stop.clone(), watch.clone());
        tokio::spawn(async move { stop.run_until_cancelled(looking.look_on(&pool)).await });
        watch
    }

    /// Triggers a poll at once, so that the effect of an action shows.
    pub(super) fn look_now(&self) {
        self.look_now.notify_one();
    }

    /// Returns the result of the last successful poll.
    pub(super) fn last(&self) -> Option<Arc<Snapshot>> {
        self.seen().last.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_on(&self, pool: &PgPool) {
        loop {
            let began = Instant::now();
            let result = look(pool, self.last().as_deref()).await;
            self.remember(result);
            let pause = INTERVAL.max(began.elapsed() * SHARE_OF_TIME);
            timeout(pause, self.look_now.notified()).await.ok();
        }
    }

    fn remember(&self, result: Result<Snapshot, postgres::Error>) {
        let mut seen = self.seen();
        match result {
            Ok(look) => {
                if seen.history.len() == REMEMBERED {
                    seen.history.pop_front();
                }
                seen.history.push_back(Point::from(&look));
                seen.last = Some(Arc::new(look));
                seen.failure = None;
            }
            Err(error) => {
                // Logged once per outage, not every 2 s.
                if seen.failure.is_none() {
                    tracing::warn!(error = chain(&error), "cannot poll the database");
                }
                seen.failure = Some(error.to_string());
            }
        }
    }
}

async fn look(pool: &PgPool, before: Option<&Snapshot>) -> Result<Snapshot, postgres::Error> {
    let pulse = sales::pulse(pool).await?;
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

/// Query of `/overview`.
#[derive(Debug, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Since {
    /// Return only polls after this time; default: the whole history.
    #[garde(skip)]
    since: Option<DateTime<Utc>>,
}

/// Response of `/overview`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Overview {
    version: &'static str,
    /// Why the last poll failed; none if it succeeded.
    failure: Option<String>,
    now: Option<Arc<Snapshot>>,
    history: Vec<Point>,
}

pub(super) async fn overview(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
    Query(Since { since }): Query<Since>,
) -> Result<Json<Overview>, Problem> {
    let seen = state.watch.seen();
    let history = seen.history.iter();
    Ok(Json(Overview {
        version: env!("CARGO_PKG_VERSION"),
        failure: seen.failure.clone(),
        now: seen.last.clone(),
        history: history
            .filter(|point| since.is_none_or(|since| point.at > since))
            .cloned()
            .collect(),
    }))
}
