//! The janitor: one leader among all workers puts right what went wrong elsewhere.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use shared::{
    booking::expire,
    idempotency,
    postgres::{self, Database, Leadership, Session, in_time},
    queue::{housekeeping, steer},
    telemetry, timestamp,
};
use sqlx::PgPool;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, metrics::JANITOR_FINDS};

/// The advisory lock of the leader: "janitor" in ASCII.
const LEADER_KEY: i64 = 0x006a_616e_6974_6f72;

/// A job that was taken longer ago was lost: a job takes 15 s at most.
const STUCK_AFTER: Duration = Duration::from_mins(2);

/// How long a worker is listed after it was last seen.
const WORKERS_KEPT: Duration = Duration::from_hours(24);

/// Does a round now and then until `stop`, whenever this process leads.
pub async fn run(database: Database, config: &Config, stop: CancellationToken) {
    // Not at once: after a time without workers, the jobs that waited should come first.
    let every = config.janitor_interval();
    let mut rounds = interval_at(Instant::now() + every, every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leadership = None;
    // From the start, and not when the lead is taken: the clock may be set in between.
    let mut clock = stop
        .run_until_cancelled(MeasuredClock::read(&database.pool))
        .await
        .and_then(Result::ok);
    while stop.run_until_cancelled(rounds.tick()).await.is_some() {
        // A stop in the middle of a sweep rolls its last batch back.
        let round = Box::pin(round(&database, config, &mut leadership, &mut clock));
        if let Some(Err(error)) = stop.run_until_cancelled(round).await {
            leadership = None;
            tracing::warn!(
                error = telemetry::chain(&error),
                "the janitor's round failed"
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

/// The database's clock when this process started, and how much time went by since as the process measures it. So a clock that
/// is set forward while it runs makes nothing older than it is.
#[derive(Debug, Clone, Copy)]
pub struct MeasuredClock {
    began: Instant,
    at: DateTime<Utc>,
}

impl From<DateTime<Utc>> for MeasuredClock {
    /// One that says so now.
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

/// What a round put right. All but the pruned are for people to know of: each is the trace of a failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Overdue bookings whose job did not come.
    pub swept: usize,
    /// Jobs that were left in a lost worker's hands.
    pub rescued: i64,
    /// Such jobs that had no attempt left.
    pub died: i64,
    /// Jobs deleted that were over for long enough.
    pub pruned_jobs: u64,
    /// Idempotency keys forgotten that were kept for long enough.
    pub pruned_keys: u64,
    /// Workers deleted that were gone for long enough.
    pub pruned_workers: u64,
}

impl Cleaned {
    /// Logs what was done, counts it, and notes what people have to know of.
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
                "expired holds whose job did not come",
            ),
            (
                "rescue",
                rescued.unsigned_abs(),
                "jobs of a lost worker will be run again",
            ),
            (
                "bury",
                died.unsigned_abs(),
                "jobs died with their worker, with no attempt left",
            ),
        ] {
            JANITOR_FINDS.with_label_values(&[action]).inc_by(count);
            if count > 0 {
                tracing::warn!(count, "{what}");
                steer::note_find(pool, action, what, count).await?;
            }
        }
        Ok(())
    }
}

/// One round: sweeps, rescues, prunes. Each in small batches, until there is nothing left to do. Adds what it did to `cleaned`.
///
/// # Errors
///
/// [`postgres::Error`]; what was done before stays done. Where the sweep fails, as with a server of Citus away, the others are
/// done all the same.
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

/// Expires the bookings that have been overdue for longer than `grace`, although their job did not come, and
/// returns how many there were. There should be none.
///
/// # Errors
///
/// [`postgres::Error`]; what was swept before stays swept.
pub async fn sweep(database: &Database, grace: TimeDelta) -> Result<usize, postgres::Error> {
    let mut session = Session::new(database);
    let mut expired = 0;
    for show_id in in_time(expire::find_overdue_shows(&database.pool, grace)).await? {
        match expire::sweep(&mut session, show_id, grace).await {
            Ok(count) => expired += count,
            // One show whose seats do not add up, or that somebody keeps locked, must not keep the others from theirs.
            Err(
                error @ (postgres::Error::Drift { .. }
                | postgres::Error::Unexpected(_)
                | postgres::Error::Conflict(_)
                | postgres::Error::Locked(_)),
            ) => {
                tracing::error!(
                    show_id,
                    error = telemetry::chain(&error),
                    "cannot expire the holds of a show"
                );
            }
            Err(error) => return Err(error),
        }
    }
    Ok(expired)
}
