//! The janitor: one leader among all workers puts right what went wrong elsewhere.

use chrono::TimeDelta;
use shared::{
    booking::expire::{self, Overdue},
    postgres::{self, Leadership, Session},
    telemetry,
};
use sqlx::PgPool;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// The advisory lock of the leader: "janitor" in ASCII.
const LEADER_KEY: i64 = 0x006a_616e_6974_6f72;

/// Does a round now and then until `stop`, whenever this process leads.
pub async fn run(pool: PgPool, config: &Config, stop: CancellationToken) {
    // Not at once: after a time without workers, the jobs that waited should come first.
    let every = config.janitor_interval();
    let mut rounds = interval_at(Instant::now() + every, every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leadership = None;
    while stop.run_until_cancelled(rounds.tick()).await.is_some() {
        // A stop in the middle of a sweep rolls its last batch back.
        let round = round(&pool, config, &mut leadership);
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
    pool: &PgPool,
    config: &Config,
    leadership: &mut Option<Leadership>,
) -> Result<(), postgres::Error> {
    match leadership {
        Some(leadership) => leadership.check().await?,
        None => *leadership = Leadership::try_take(pool, LEADER_KEY).await?,
    }
    if leadership.is_some() {
        let expired = sweep(pool, config.overdue_grace()).await?;
        if expired > 0 {
            tracing::warn!(expired, "expired holds whose job did not come");
        }
    }
    Ok(())
}

/// Expires the bookings that have been overdue for longer than `grace`, although their job did not come, and
/// returns how many there were. There should be none.
///
/// # Errors
///
/// [`postgres::Error`]; what was swept before stays swept.
pub async fn sweep(pool: &PgPool, grace: TimeDelta) -> Result<usize, postgres::Error> {
    let mut session = Session::new(pool);
    let mut expired = 0;
    for show_id in expire::find_overdue_shows(pool, grace).await? {
        let overdue = Overdue {
            show_ids: vec![show_id],
            grace,
        };
        loop {
            let count = expire::expire_overdue(&mut session, &overdue).await?;
            expired += count;
            if count < expire::MAX_AT_ONCE {
                break;
            }
        }
    }
    Ok(expired)
}
