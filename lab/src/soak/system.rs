//! The system under test, and samples of its metrics.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use shared::{
    local_postgres::{LocalPostgres, Mode},
    postgres::{Database, usage},
};
use tokio::{task::spawn_blocking, time::Instant};

use crate::{
    program::{Program, Start},
    stress::Outcome,
};

/// Number of finished jobs that the worker keeps.
///
/// Less than the default, so that the jobs table reaches its final size within minutes.
const KEEP_DONE_JOBS: &str = "20000";

/// Metrics at the end of a round.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sample {
    /// Minutes since the start of the run.
    pub(super) minutes: f64,
    pub(super) bookings_per_second: f64,
    /// Median latency of the requests of this round.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Time from deadline to failure of the previous round's holds.
    pub(super) expiry_lag_p99_seconds: f64,
    pub(super) api_mb: f64,
    pub(super) worker_mb: f64,
    /// Bytes per booking, in the table and its indexes.
    pub(super) bytes_of_a_booking: f64,
    pub(super) bookings_mb: f64,
    pub(super) jobs_mb: f64,
    pub(super) shows_mb: f64,
    pub(super) dead_rows: f64,
}

/// The system under test, and the connection pool that samples it.
pub(super) struct System {
    pub(super) api: Program,
    pub(super) api_url: String,
    pub(super) worker: Program,
    pub(super) database: Database,
    /// Declared last, so that it is dropped last.
    _server: LocalPostgres,
}

impl System {
    pub(super) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let data_dir = dir.join("postgres");
        let server =
            spawn_blocking(move || LocalPostgres::start(&data_dir, Mode::Durable)).await??;
        let database_url = server.create_database("soak").await?;
        let (api_log, worker_log) = (dir.join("api.log"), dir.join("worker.log"));
        let (api, addresses) = Program::api(Start {
            database_url: &database_url,
            args: &["--listen", "127.0.0.1:0"],
            log_file: Some(&api_log),
        })
        .await?;
        let worker = Program::worker(Start {
            database_url: &database_url,
            args: &["--keep-done-jobs", KEEP_DONE_JOBS],
            log_file: Some(&worker_log),
        })
        .await?;
        Ok(Self {
            api,
            api_url: format!("http://{}", addresses.api),
            worker,
            database: server.connect("soak").await?,
            _server: server,
        })
    }

    pub(super) async fn sample(&self, began: Instant, outcome: &Outcome) -> anyhow::Result<Sample> {
        let usage = usage::usage(&self.database).await?;
        let table = |name: &str| usage.tables.iter().find(|table| table.name == name);
        let mb = |name: &str| table(name).map_or(0.0, |table| number(table.bytes) / 1e6);
        let bookings = table("bookings").context("there is no bookings table")?;
        let (p50_ms, p99_ms) = outcome.load.seen(|seen| {
            let at = |quantile| micros(seen.latency.value_at_quantile(quantile));
            (at(0.5), at(0.99))
        });
        Ok(Sample {
            minutes: began.elapsed().as_secs_f64() / 60.0,
            bookings_per_second: unsigned(outcome.load.booked()) / outcome.took.as_secs_f64(),
            p50_ms,
            p99_ms,
            expiry_lag_p99_seconds: 0.0,
            api_mb: self.api.memory_mb().unwrap_or_default(),
            worker_mb: self.worker.memory_mb().unwrap_or_default(),
            bytes_of_a_booking: number(bookings.bytes) / number(bookings.rows.max(1)),
            bookings_mb: mb("bookings"),
            jobs_mb: mb("apalis.jobs"),
            shows_mb: mb("shows"),
            dead_rows: usage.tables.iter().map(|t| number(t.dead_rows)).sum(),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes stay far below 2^52")]
fn number(count: i64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn unsigned(count: u64) -> f64 {
    count as f64
}

fn micros(micros: u64) -> f64 {
    unsigned(micros) / 1000.0
}
