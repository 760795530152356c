//! Cost of a booking: processor time, by program, and write-ahead log.

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::{
    environment::Environment,
    processor_time::{own_processor_seconds, processor_seconds},
    program::Program,
    stress,
};

/// Resources that one operation uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cost {
    pub(crate) api_micros: f64,
    pub(crate) worker_micros: f64,
    pub(crate) database_micros: f64,
    /// Processor time of the load, which shares the machine.
    pub(crate) load_micros: f64,
    /// Bytes of PostgreSQL's write-ahead log.
    pub(crate) log_bytes: f64,
}

impl Cost {
    const FIGURES: [fn(&mut Self) -> &mut f64; 5] = [
        |cost| &mut cost.api_micros,
        |cost| &mut cost.worker_micros,
        |cost| &mut cost.database_micros,
        |cost| &mut cost.load_micros,
        |cost| &mut cost.log_bytes,
    ];

    /// Combines costs: applies `figure` to the values of each resource.
    pub(crate) fn from(costs: &[Self], figure: impl Fn(Vec<f64>) -> f64) -> Self {
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
    pub(crate) fn without(self, other: Self) -> Self {
        Self::from(&[self, other], |values| (values[0] - values[1]).max(0.0))
    }

    /// Returns the weighted sum of costs.
    pub(crate) fn sum(parts: &[(f64, Self)]) -> Self {
        let times = |&(times, cost): &(f64, Self)| Self::from(&[cost], |values| values[0] * times);
        let parts: Vec<Self> = parts.iter().map(times).collect();
        Self::from(&parts, |values| values.iter().sum())
    }
}

/// Resources used since the processes started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading(Cost);

impl Reading {
    /// Reads what the database, the api and this program have used so far, and the worker.
    pub(crate) async fn take(
        environment: &Environment<'_>,
        worker: Option<&Program>,
    ) -> anyhow::Result<Self> {
        const UNKNOWN: &str = "the operating system does not report processor time";
        let micros = |seconds: Option<f64>| anyhow::Ok(seconds.context(UNKNOWN)? * 1e6);
        let worker = worker.map(|worker| micros(worker.processor_seconds()));
        let pool = environment.connect().await?.pool;
        let log_bytes =
            sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8")
                .fetch_one(&pool)
                .await?;
        pool.close().await;
        Ok(Self(Cost {
            api_micros: micros(environment.api.processor_seconds())?,
            worker_micros: worker.transpose()?.unwrap_or_default(),
            database_micros: micros(processor_seconds(environment.server.process_id()?))?,
            load_micros: micros(own_processor_seconds())?,
            log_bytes,
        }))
    }

    /// Returns the cost of each of `count` operations since an earlier reading.
    pub(crate) fn since(self, before: Self, count: f64) -> Cost {
        Cost::sum(&[(1.0 / count, self.0.without(before.0))])
    }
}

/// Runs a load, and returns its report and what each booking cost, without its verification.
pub(crate) async fn of_load(
    environment: &Environment<'_>,
    load: &stress::Args,
) -> anyhow::Result<(stress::Report, Cost)> {
    let load = environment.load(load);
    let crowd = stress::gather(&load).await?;
    let before = Reading::take(environment, None).await?;
    let outcome = crowd.put_load(&load).await?;
    let after = Reading::take(environment, None).await?;
    let report = stress::verified(&load, &outcome).await?;
    ensure!(report.verified(), "the seats do not add up:\n{report}");
    ensure!(report.bookings > 0, "nothing was booked");
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let cost = after.since(before, report.bookings as f64);
    Ok((report, cost))
}
