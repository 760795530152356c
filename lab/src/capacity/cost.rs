//! Measures the processor time and the log that a booking costs.

use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use serde::Serialize;
use shared::local_postgres::LocalPostgres;
use sqlx::PgPool;
use tokio::time::sleep;

use crate::{
    environment::{self, DATABASE, Environment},
    median::median,
    processor_time::processor_seconds,
    program::Program,
    stress::{self, Mode, verify},
};

/// Resources that one operation uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cost {
    pub(super) api_micros: f64,
    pub(super) worker_micros: f64,
    pub(super) database_micros: f64,
    /// Bytes of PostgreSQL's write-ahead log.
    pub(super) log_bytes: f64,
}

/// Cost of each operation on a booking.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Costs {
    pub(super) reserve: Cost,
    pub(super) confirm: Cost,
    pub(super) expire: Cost,
}

impl Cost {
    const FIGURES: [fn(&mut Self) -> &mut f64; 4] = [
        |cost| &mut cost.api_micros,
        |cost| &mut cost.worker_micros,
        |cost| &mut cost.database_micros,
        |cost| &mut cost.log_bytes,
    ];

    /// Combines costs: applies `figure` to the values of each resource.
    fn from(costs: &[Self], figure: impl Fn(Vec<f64>) -> f64) -> Self {
        let mut all = Self::default();
        for of in Self::FIGURES {
            let values = costs.iter().map(|cost| *of(&mut cost.clone())).collect();
            *of(&mut all) = figure(values);
        }
        all
    }

    /// Returns the difference to another cost.
    ///
    /// It is not below zero, which noise could cause where both are about the same.
    fn without(self, other: Self) -> Self {
        Self::from(&[self, other], |values| (values[0] - values[1]).max(0.0))
    }

    /// Returns the weighted sum of costs.
    pub(super) fn sum(parts: &[(f64, Self)]) -> Self {
        let times = |&(times, cost): &(f64, Self)| Self::from(&[cost], |values| values[0] * times);
        let parts: Vec<Self> = parts.iter().map(times).collect();
        Self::from(&parts, |values| values.iter().sum())
    }
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
    let both = of_load(server, &environment, load(Mode::Confirm)).await?;
    environment.clear().await?;
    bar.inc(1);

    let environment = Environment::start(server, BATCH_MAX).await?;
    let held = stress::Args {
        hold_seconds: Some(HOLD_SECONDS),
        ..load(Mode::Spread)
    };
    let reserve = of_load(server, &environment, held).await?;
    bar.inc(1);
    let expire = of_expiring(server, &environment).await?;
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

/// Returns the cost of a booking under this load.
async fn of_load(
    server: &LocalPostgres,
    environment: &Environment<'_>,
    load: stress::Args,
) -> anyhow::Result<Cost> {
    let pool = server.connect(DATABASE).await?.pool;
    let load = environment.load(&load);
    let crowd = stress::gather(&load).await?;
    let before = Reading::take(server, &pool, Some(&environment.api), None).await?;
    let outcome = crowd.put_load(&load).await?;
    let after = Reading::take(server, &pool, Some(&environment.api), None).await?;
    pool.close().await;
    let verified = verify::verify(&outcome, &verify::Expected::default()).await?;
    ensure!(verified.faults.is_empty(), "{:?}", verified.faults);
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let bookings = outcome.load.booked() as f64;
    ensure!(bookings > 0.0, "nothing was booked");
    Ok(after.since(before, bookings))
}

/// Returns the cost of expiring a hold.
///
/// Waits until all holds in the database have run out, then starts a worker that expires them.
async fn of_expiring(
    server: &LocalPostgres,
    environment: &Environment<'_>,
) -> anyhow::Result<Cost> {
    let database = server.connect(DATABASE).await?;
    environment::holds_have_run_out(&database).await?;
    let pool = database.pool;
    let overdue = count_holds(&pool).await?;
    let worker = environment.start_worker()?;
    let before = Reading::take(server, &pool, None, Some(&worker)).await?;
    while count_holds(&pool).await? > 0 {
        sleep(Duration::from_millis(200)).await;
    }
    let after = Reading::take(server, &pool, None, Some(&worker)).await?;
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

/// Resources used since the processes started.
#[derive(Debug, Clone, Copy)]
struct Reading(Cost);

impl Reading {
    async fn take(
        server: &LocalPostgres,
        pool: &PgPool,
        api: Option<&Program>,
        worker: Option<&Program>,
    ) -> anyhow::Result<Self> {
        const UNKNOWN: &str = "the operating system does not report processor time";
        let micros = |program: Option<&Program>| match program {
            Some(program) => Ok(program.processor_seconds().context(UNKNOWN)? * 1e6),
            None => anyhow::Ok(0.0),
        };
        let database = processor_seconds(server.process_id()?).context(UNKNOWN)?;
        Ok(Self(Cost {
            api_micros: micros(api)?,
            worker_micros: micros(worker)?,
            database_micros: database * 1e6,
            log_bytes: sqlx::query_scalar(
                "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8",
            )
            .fetch_one(pool)
            .await?,
        }))
    }

    /// Returns the cost of each of `count` operations since an earlier reading.
    fn since(self, before: Self, count: f64) -> Cost {
        Cost::sum(&[(1.0 / count, self.0.without(before.0))])
    }
}
