//! The command `ticketing-lab bench`: measures group commit against a transaction per booking.

mod admin_latency;
mod chart;
mod database_limit;
mod loads;
mod report;
mod trials;

use std::{fs, path::PathBuf};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use shared::local_postgres::{LocalPostgres, Mode as Durability};

use self::{
    loads::{CASES, COMPARED, LIMITED, PAIRS},
    report::{Case, Comparison, Measured, Report},
    trials::Trials,
};
use crate::{
    environment::Environment,
    stress::{self, Mode},
};

/// Measure group commit against a transaction per booking, and both against the database alone
///
/// Starts a private PostgreSQL server with durable settings, and for each measurement a fresh
/// database and an `api` process from the directory of this program (build all programs with
/// --release first). The two ways alternate (A B A B …), and medians are reported. Prints a table;
/// writes bench.json and bench.svg.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of measurements of each way
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    runs: u8,

    /// Duration of each measurement, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Data directory of the server, on the disk to measure; removed at the end
    #[arg(long, value_name = "DIR", default_value = "/var/tmp/ticketing-bench")]
    data_dir: PathBuf,

    /// Directory for bench.json and bench.svg
    #[arg(long, value_name = "DIR", default_value = ".")]
    output: PathBuf,

    /// Maximum number of requests that share a transaction, to compare with 1
    #[arg(long, value_name = "N", default_value_t = 500)]
    batch_max: u16,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let data_dir = DataDir(args.data_dir.clone());
    let server = LocalPostgres::start(&data_dir.0, Durability::Durable)?;
    let report = measure(&args, &server).await;
    tokio::task::spawn_blocking(move || {
        drop(server);
        drop(data_dir);
    })
    .await?;
    let report = report?;
    println!("{report}");
    fs::write(
        args.output.join("bench.json"),
        serde_json::to_string_pretty(&report)? + "\n",
    )
    .context("cannot write bench.json")?;
    chart::draw(&report, &args.output.join("bench.svg"))
}

/// A directory that is removed when this value is dropped.
struct DataDir(PathBuf);

impl Drop for DataDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "cannot remove {}", self.0.display());
        }
    }
}

async fn measure(args: &Args, server: &LocalPostgres) -> anyhow::Result<Report> {
    let steps = ((CASES.len() as u64 + 2 * u64::from(PAIRS)) * 2 + 1) * u64::from(args.runs)
        + trials::COUNT;
    let bar = ProgressBar::new(steps).with_style(
        ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg}")
            .context("the progress bar's template is invalid")?,
    );
    let mut limit = Vec::new();
    let mut cases = Vec::new();
    for (mode, connections) in CASES {
        let mut case = Case::new(mode, connections);
        for _ in 0..args.runs {
            for batch_max in [1, args.batch_max] {
                bar.set_message(
                    format!("{mode:?}, {connections} connections, batches of {batch_max}")
                        .to_lowercase(),
                );
                let environment = Environment::start(server, batch_max).await?;
                let measured = measure_once(args, environment, mode, connections).await?;
                case.add(batch_max == 1, measured);
                bar.inc(1);
            }
            // In the same runs as the load that is compared with it, because the speed of a machine
            // varies over time.
            if (mode, connections) == LIMITED {
                bar.set_message("database alone");
                limit.push(database_limit::measure(server, args.seconds).await?);
                bar.inc(1);
            }
        }
        cases.push(case);
    }
    let guard = compare(args, server, &bar, Feature::Keys).await?;
    let dashboard = compare(args, server, &bar, Feature::Dashboard).await?;
    let trials = run_trials(args, server, &bar).await?;
    bar.finish_and_clear();
    Report::new(
        args.batch_max,
        cases,
        limit,
        guard,
        dashboard,
        trials,
        server,
    )
    .await
}

async fn run_trials(
    args: &Args,
    server: &LocalPostgres,
    bar: &ProgressBar,
) -> anyhow::Result<Trials> {
    bar.set_message("10,000 connections on a show that sells out");
    let crowd = trials::crowd(server, args.batch_max).await?;
    bar.inc(1);
    bar.set_message("100,000 overdue bookings, then a worker");
    let backlog = trials::backlog(server, args.batch_max).await?;
    bar.inc(1);
    bar.set_message("5,000 bookings per second, all of which expire");
    let steady = trials::steady(server, args.batch_max).await?;
    bar.inc(1);
    bar.set_message("admin listener with 1,000,000 jobs and bookings");
    let admin = admin_latency::measure(server, args.batch_max).await?;
    bar.inc(1);
    Ok(Trials {
        crowd,
        backlog,
        steady,
        admin,
    })
}

/// Measures a load once on this environment, and clears the environment.
async fn measure_once(
    args: &Args,
    environment: Environment<'_>,
    mode: Mode,
    connections: u32,
) -> anyhow::Result<Measured> {
    let load = stress::Args {
        connections,
        duration: args.seconds,
        ..stress::Args::quiet(mode)
    };
    let report = environment.put_load(&load).await?;
    environment.clear().await?;
    Ok(Measured {
        bookings_per_second: report.bookings_per_second,
        p50_ms: report.latency_ms.p50,
        p99_ms: report.latency_ms.p99,
    })
}

/// Rate limit that is counted but never reached, in requests per second.
const UNREACHED_RATE: u32 = 1_000_000;

/// Feature that is in use in half of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feature {
    /// API keys and rate limits.
    Keys,
    /// An open dashboard.
    Dashboard,
}

/// Measures bookings of a hot show with and without this feature in use, alternately.
async fn compare(
    args: &Args,
    server: &LocalPostgres,
    bar: &ProgressBar,
    beside: Feature,
) -> anyhow::Result<Comparison> {
    let (mode, connections) = COMPARED;
    let mut comparison = Comparison::default();
    // More pairs than elsewhere, because the difference is expected to be small.
    for _ in 0..args.runs * PAIRS {
        for is_there in [false, true] {
            let with = if is_there { "with" } else { "without" };
            bar.set_message(
                format!("hot, {connections} connections, {with} {beside:?}").to_lowercase(),
            );
            let rate = (is_there && beside == Feature::Keys).then_some(UNREACHED_RATE);
            let batch_max = args.batch_max.to_string();
            let environment =
                Environment::start_with(server, &["--batch-max", &batch_max], rate).await?;
            let page = (is_there && beside == Feature::Dashboard)
                .then(|| admin_latency::open_page(&environment.admin_url))
                .transpose()?;
            let measured = measure_once(args, environment, mode, connections).await?;
            drop(page);
            if is_there {
                comparison.with.push(measured);
            } else {
                comparison.without.push(measured);
            }
            bar.inc(1);
        }
    }
    Ok(comparison)
}
