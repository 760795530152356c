//! `ticketing-lab bench`

mod chart;
mod database_limit;
mod report;
mod trials;
mod watch;

use std::{fs, path::PathBuf};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use shared::local_postgres::{LocalPostgres, Mode as Durability};

pub(crate) use self::report::median;
use self::{
    report::{Case, Comparison, Measured, Report},
    trials::Trials,
};
use crate::{
    stage::Stage,
    stress::{self, Mode},
};

/// Measure group commit against a transaction per booking, and both against the database alone
///
/// Starts a PostgreSQL of its own with durable settings, and for each measurement a fresh database and the `api`
/// program beside this one (build all of them with --release first). The two ways take turns: A B A B …; medians
/// are reported. Prints a table; writes bench.json and bench.svg.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often each way is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    runs: u8,

    /// How long each measurement takes
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// Where the database is made, on the disk to be measured; removed at the end
    #[arg(long, value_name = "DIR", default_value = "/var/tmp/ticketing-bench")]
    data_dir: PathBuf,

    /// Where bench.json and bench.svg are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    output: PathBuf,

    /// The most requests that share a transaction, of the way that is compared with 1
    #[arg(long, value_name = "N", default_value_t = 500)]
    batch_max: u16,
}

/// What is measured: mode and connections.
const CASES: [(Mode, u32); 7] = [
    (Mode::Hot, 1),
    (Mode::Hot, 8),
    (Mode::Hot, 32),
    (Mode::Hot, 128),
    (Mode::Hot, 512),
    (Mode::Spread, 128),
    (Mode::Confirm, 128),
];

/// The load that is measured with something beside it, and without.
const COMPARED: (Mode, u32) = (Mode::Hot, 128);

/// How many pairs of such measurements a run has.
const PAIRS: u8 = 2;

/// The load that is held against the database alone.
const LIMITED: (Mode, u32) = (Mode::Hot, 512);

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

/// A directory that goes away with this.
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
            .context("the progress bar's template")?,
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
                let stage = Stage::set(server, batch_max).await?;
                let measured = measure_once(args, stage, mode, connections).await?;
                case.add(batch_max == 1, measured);
                bar.inc(1);
            }
            // Beside the load that is held against it, because machines are now faster and now slower.
            if (mode, connections) == LIMITED {
                bar.set_message("database alone");
                limit.push(database_limit::measure(server, args.seconds).await?);
                bar.inc(1);
            }
        }
        cases.push(case);
    }
    let guard = compare(args, server, &bar, Beside::Keys).await?;
    let dashboard = compare(args, server, &bar, Beside::Dashboard).await?;
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
    bar.set_message("5,000 bookings a second, all of them expire");
    let steady = trials::steady(server, args.batch_max).await?;
    bar.inc(1);
    bar.set_message("1,000,000 jobs and bookings, and who looks at them");
    let admin = watch::measure(server, args.batch_max).await?;
    bar.inc(1);
    Ok(Trials {
        crowd,
        backlog,
        steady,
        admin,
    })
}

/// One run of the load on a fresh database and a fresh api.
async fn measure_once(
    args: &Args,
    stage: Stage<'_>,
    mode: Mode,
    connections: u32,
) -> anyhow::Result<Measured> {
    let load = stress::Args {
        connections,
        duration: args.seconds,
        ..stress::Args::quiet(mode)
    };
    let report = stage.put_load(&load).await?;
    stage.clear().await?;
    Ok(Measured {
        bookings_per_second: report.bookings_per_second,
        p50_ms: report.latency_ms.p50,
        p99_ms: report.latency_ms.p99,
    })
}

/// A limit that is counted and never reached, in requests a second.
const UNREACHED_RATE: u32 = 1_000_000;

/// What is there in one half of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// API keys and rates.
    Keys,
    /// Somebody who looks at the dashboard.
    Dashboard,
}

/// A hot show, sold with this beside it, and without: in turns.
async fn compare(
    args: &Args,
    server: &LocalPostgres,
    bar: &ProgressBar,
    beside: Beside,
) -> anyhow::Result<Comparison> {
    let (mode, connections) = COMPARED;
    let mut comparison = Comparison::default();
    // More pairs than elsewhere, because what is looked for is small.
    for _ in 0..args.runs * PAIRS {
        for is_there in [false, true] {
            let with = if is_there { "with" } else { "without" };
            bar.set_message(
                format!("hot, {connections} connections, {with} {beside:?}").to_lowercase(),
            );
            let rate = (is_there && beside == Beside::Keys).then_some(UNREACHED_RATE);
            let batch_max = args.batch_max.to_string();
            let stage = Stage::set_with(server, &["--batch-max", &batch_max], rate).await?;
            let page = (is_there && beside == Beside::Dashboard)
                .then(|| watch::open_page(&stage.admin_url))
                .transpose()?;
            let measured = measure_once(args, stage, mode, connections).await?;
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
