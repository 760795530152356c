//! The janitor: one leader among all workers repairs what failed elsewhere.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use shared::{
    booking::expire,
    idempotency,
    postgres::{self, Database, Leadership, Session, in_time},
    queue::{control, housekeeping},
    telemetry, timestamp,
};
use sqlx::PgPool;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, metrics::JANITOR_FINDS};

/// Key of the leader's advisory lock: "janitor" in ASCII.
const LEADER_KEY: i64 = 0x006a_616e_6974_6f72;

/// Age of a claim after which its job counts as lost. A job takes 15 s at most.
const STUCK_AFTER: Duration = Duration::from_mins(2);

/// Time for which a worker is listed after it was last seen.
const WORKERS_KEPT: Duration = Duration::from_hours(24);

/// Runs a round at each interval until `stop`, whenever this process leads.
pub async fn run(database: Database, config: &Config, stop: CancellationToken) {
    // Not at once: after a time without workers, the jobs that waited should run first.
    let every = config.janitor_interval();
    let mut rounds = interval_at(Instant::now() + every, every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leadership = None;
    // Read at the start, and not when this process becomes the leader: the clock may be set in
    // between.
    let mut clock = stop
        .run_until_cancelled(MeasuredClock::read(&database.pool))
        .await
        .and_then(Result::ok);
    while stop.run_until_cancelled(rounds.tick()).await.is_some() {
        // A stop in the middle of a sweep rolls back its last batch.
        let round = Box::pin(round(&database, config, &mut leadership, &mut clock));
        if let Some(Err(error)) = stop.run_until_cancelled(round).await {
            leadership = None;
            tracing::warn!(
                error = telemetry::chain(&error),
                "a round of the janitor failed"
            );
        }
    }
}

async fn round(
    database: &Database,
    config: &Config,
    leadership: &mut Option<Leadership>,
    clock: &mut Option<MeasuredClock>,
) -> Result<(), postgres::Error> {
    match leadership {
        Some(leadership) => leadership.check().await?,
        None => *leadership = in_time(Leadership::try_take(&database.pool, LEADER_KEY)).await?,
    }
    if leadership.is_some() {
        let clock = match clock {
            Some(clock) => clock,
            None => clock.insert(MeasuredClock::read(&database.pool).await?),
        };
        let mut cleaned = Cleaned::default();
        let result = clean(database, config, clock, &mut cleaned).await;
        cleaned.tell(&database.pool).await?;
        result?;
    }
    Ok(())
}

/// The database's clock when this process started, plus the time that the process measured since.
///
/// So a clock that is set forward while the process runs makes nothing older than it is.
#[derive(Debug, Clone, Copy)]
pub struct MeasuredClock {
    began: Instant,
    at: DateTime<Utc>,
}

impl From<DateTime<Utc>> for MeasuredClock {
    /// Creates a clock that shows `at` now.
    fn from(at: DateTime<Utc>) -> Self {
        let began = Instant::now();
        Self { began, at }
    }
}

impl MeasuredClock {
    async fn read(pool: &PgPool) -> Result<Self, postgres::Error> {
        in_time(timestamp::now(pool)).await.map(Self::from)
    }

    fn now(&self) -> DateTime<Utc> {
        self.at + self.began.elapsed()
    }
}

/// Counts of what a round repaired and pruned.
///
/// Operators must know of all but the pruned ones: each is the trace of a failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Overdue bookings whose job did not run.
    pub swept: usize,
    /// Jobs of lost workers that will be run again.
    pub rescued: i64,
    /// Jobs of lost workers that had no attempt left.
    pub died: i64,
    /// Finished and dead jobs that were deleted after their retention.
    pub pruned_jobs: u64,
    /// Idempotency keys that were deleted after their retention.
    pub pruned_keys: u64,
    /// Workers that were deleted because they had not been seen for long enough.
    pub pruned_workers: u64,
}

impl Cleaned {
    /// Logs and counts what was done, and records what operators must know.
    async fn tell(self, pool: &PgPool) -> Result<(), postgres::Error> {
        let Self {
            swept,
            rescued,
            died,
            pruned_jobs,
            pruned_keys,
            pruned_workers,
        } = self;
        if pruned_jobs > 0 || pruned_keys > 0 || pruned_workers > 0 {
            tracing::info!(pruned_jobs, pruned_keys, pruned_workers, "pruned");
        }
        for (action, count, what) in [
            (
                "sweep",
                swept as u64,
                "expired holds whose jobs did not run",
            ),
            (
                "rescue",
                rescued.unsigned_abs(),
                "jobs of lost workers will be run again",
            ),
            (
                "bury",
                died.unsigned_abs(),
                "jobs of lost workers have no attempt left and are dead",
            ),
        ] {
            JANITOR_FINDS.with_label_values(&[action]).inc_by(count);
            if count > 0 {
                tracing::warn!(count, "{what}");
                control::note_find(pool, action, what, count).await?;
            }
        }
        Ok(())
    }
}

/// Runs one round: sweeps, rescues and prunes. Adds what it did to `cleaned`.
///
/// Each step works in small batches, until there is nothing left to do.
///
/// # Errors
///
/// Fails if a step fails; what was done before stays done. If the sweep fails, for example because
/// a Citus server is not available, the other steps are done all the same.
pub async fn clean(
    database: &Database,
    config: &Config,
    clock: &MeasuredClock,
    cleaned: &mut Cleaned,
) -> Result<(), postgres::Error> {
    let swept = sweep(database, config.overdue_grace()).await;
    let swept = swept.map(|count| cleaned.swept += count);
    rescue(&database.pool, cleaned).await?;
    prune(&database.pool, config, clock, cleaned).await?;
    swept
}

async fn rescue(pool: &PgPool, cleaned: &mut Cleaned) -> Result<(), postgres::Error> {
    loop {
        let rescued = in_time(housekeeping::rescue(pool, STUCK_AFTER)).await?;
        let housekeeping::Rescued { again, dead } = rescued;
        cleaned.rescued += again;
        cleaned.died += dead;
        if again + dead < housekeeping::BATCH {
            return Ok(());
        }
    }
}

async fn prune(
    pool: &PgPool,
    config: &Config,
    clock: &MeasuredClock,
    cleaned: &mut Cleaned,
) -> Result<(), postgres::Error> {
    let full = housekeeping::BATCH.unsigned_abs();
    loop {
        let keys = in_time(idempotency::prune(pool, config.keys_kept(), clock.now())).await?;
        cleaned.pruned_keys += keys;
        if keys < idempotency::PRUNED_AT_ONCE.into() {
            break;
        }
    }
    while in_time(housekeeping::prune_interventions(pool)).await? == full {}
    let keep = config.retention();
    loop {
        let done = in_time(housekeeping::prune_done(pool, &keep)).await?;
        let dead = in_time(housekeeping::prune_dead(pool, &keep)).await?;
        let workers = in_time(housekeeping::prune_workers(pool, WORKERS_KEPT)).await?;
        cleaned.pruned_jobs += done + dead;
        cleaned.pruned_workers += workers;
        if done.max(dead).max(workers) < full {
            return Ok(());
        }
    }
}

/// Expires the bookings that have been overdue for longer than `grace`, and returns their number.
///
/// Their jobs should have expired them, so there should be none.
///
/// # Errors
///
/// Fails on a database error; what was swept before stays swept.
pub async fn sweep(database: &Database, grace: TimeDelta) -> Result<usize, postgres::Error> {
    let mut session = Session::new(database);
    let mut expired = 0;
    for show_id in in_time(expire::find_overdue_shows(&database.pool, grace)).await? {
        match expire::sweep(&mut session, show_id, grace).await {
            Ok(count) => expired += count,
            // A show whose seats do not add up, or that another transaction keeps locked, must not
            // affect others.
            Err(
                error @ (postgres::Error::RowCountMismatch { .. }
                | postgres::Error::Unexpected(_)
                | postgres::Error::Conflict(_)
                | postgres::Error::PartlyCommitted
                | postgres::Error::Locked(_)),
            ) => {
                tracing::error!(
                    show_id = show_id.0,
                    error = telemetry::chain(&error),
                    "cannot expire the holds of a show"
                );
            }
            Err(error) => return Err(error),
        }
    }
    Ok(expired)
}
