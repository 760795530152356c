//! Measures the processor time and the log that a booking costs.

use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;
use shared::local_postgres::LocalPostgres;
use sqlx::PgPool;
use tokio::time::sleep;

use crate::{
    cost::{Cost, Reading, of_load},
    environment::{self, Environment},
    median::median,
    stress::{self, Mode},
};

/// Cost of each operation on a booking.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Costs {
    pub(super) reserve: Cost,
    pub(super) confirm: Cost,
    pub(super) expire: Cost,
}

/// Returns the median of each cost over all runs.
pub(super) fn medians(runs: &[Costs]) -> Costs {
    let of =
        |cost: fn(&Costs) -> Cost| Cost::from(&runs.iter().map(cost).collect::<Vec<_>>(), median);
    Costs {
        reserve: of(|costs| costs.reserve),
        confirm: of(|costs| costs.confirm),
        expire: of(|costs| costs.expire),
    }
}

/// Number of connections, enough to fill batches.
const CONNECTIONS: u32 = 512;

/// Lifetime of holds, longer than the longest measurement, which is a minute.
const HOLD_SECONDS: u32 = 90;

/// Steps of the progress bar per run.
pub(super) const STEPS: u64 = 3;

/// Measures each operation once.
pub(super) async fn measure(
    server: &LocalPostgres,
    shows: u32,
    seconds: u64,
    bar: &ProgressBar,
) -> anyhow::Result<Costs> {
    let load = |mode| stress::Args {
        connections: CONNECTIONS,
        shows: Some(shows),
        duration: seconds,
        ..stress::Args::quiet(mode)
    };
    let environment = Environment::start(server, BATCH_MAX).await?;
    let (_, both) = of_load(&environment, &load(Mode::Confirm)).await?;
    environment.clear().await?;
    bar.inc(1);

    let environment = Environment::start(server, BATCH_MAX).await?;
    let held = stress::Args {
        hold_seconds: Some(HOLD_SECONDS),
        ..load(Mode::Spread)
    };
    let (_, reserve) = of_load(&environment, &held).await?;
    bar.inc(1);
    let expire = of_expiring(&environment).await?;
    environment.clear().await?;
    bar.inc(1);
    Ok(Costs {
        reserve,
        confirm: both.without(reserve),
        expire,
    })
}

/// Maximum number of requests in a batch, the default of the api.
const BATCH_MAX: u16 = 500;

/// Returns the cost of expiring a hold.
///
/// Waits until all holds in the database have run out, then starts a worker that expires them.
async fn of_expiring(environment: &Environment<'_>) -> anyhow::Result<Cost> {
    let database = environment.connect().await?;
    environment::holds_have_run_out(&database).await?;
    let pool = database.pool;
    let worker = environment.start_worker().await?;
    let before = Reading::take(environment, Some(&worker)).await?;
    let overdue = count_holds(&pool).await?;
    while count_holds(&pool).await? > 0 {
        sleep(Duration::from_millis(200)).await;
    }
    let after = Reading::take(environment, Some(&worker)).await?;
    worker.stop().await?;
    pool.close().await;
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    Ok(after.since(before, overdue as f64))
}

async fn count_holds(pool: &PgPool) -> anyhow::Result<i64> {
    Ok(
        sqlx::query_scalar("SELECT count(*) FROM bookings WHERE resolved_at IS NULL")
            .fetch_one(pool)
            .await?,
    )
}
