//! The command `ticketing-lab soak`: sells for hours and checks that no metric grows.

mod chart;
mod system;
mod trend;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use shared::{audit, shutdown};
use sqlx::PgPool;
use tokio::{task::JoinHandle, time::Instant};

use self::system::{Sample, System};
use crate::{
    expiry_lag::expiry_lag,
    stress::{self, Mode, Outcome, verify},
    table,
    work_dir::WorkDir,
};

/// Sell at a steady rate for hours, and check that no metric grows
///
/// Starts a private PostgreSQL server with durable settings, and an `api` and a `worker` process
/// from the directory of this program (build them all first). Clients book, confirm, cancel and let
/// holds expire. Every 30 seconds they move on to a new show, and the bookings of the previous one
/// are verified. After each show, `soak` records memory, table sizes, dead rows, expiry lag and
/// latency. Exits with 1 if one of them grew in the last third of the run, if a request failed, or
/// if a booking is not as it was acknowledged.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Duration in hours
    #[arg(long, value_name = "H", default_value_t = 1.0, value_parser = hours)]
    hours: f64,

    /// Bookings started per second
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,

    /// Number of connections
    #[arg(long, short, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=5000))]
    connections: u32,

    /// Parent of the directory for database and logs
    ///
    /// The directory is removed at the end, except after a failure.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    data_dir: PathBuf,

    /// Directory for the samples, `soak.json`, and their chart, `soak.svg`
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

fn hours(text: &str) -> Result<f64, String> {
    let hours: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let shortest = (ROUND * trend::SAMPLES_MIN).as_secs_f64() / 3600.0;
    if (shortest..=168.0).contains(&hours) {
        Ok(hours)
    } else {
        Err(format!("must be from {shortest} to 168"))
    }
}

/// Duration of a round, in which one show is sold.
const ROUND: Duration = Duration::from_secs(30);

/// Time after a round until all its holds must be resolved; holds of this load last 10 s.
const AT_REST_AFTER: Duration = Duration::from_secs(25);

/// Result of the run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    hours: f64,
    rate: u32,
    bookings: u64,
    samples: Vec<Sample>,
    wrong: Vec<String>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let dir = WorkDir::make(&args.data_dir, "soak")?;
    let stop = shutdown::on_signal()?;
    let Some(result) = stop.run_until_cancelled(soak(&args, &dir)).await else {
        dir.remove()?;
        bail!("interrupted");
    };
    let report = result.with_context(|| format!("the logs are in {}", dir.display()))?;
    if let Some(output) = &args.output {
        fs::create_dir_all(output)?;
        let json = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(output.join("soak.json"), json)?;
        chart::draw(&report.samples, &output.join("soak.svg"))?;
    }
    print(&report);
    if !report.wrong.is_empty() {
        bail!("the soak failed; the logs are in {}", dir.display());
    }
    dir.remove()
}

async fn soak(args: &Args, dir: &Path) -> anyhow::Result<Report> {
    let system = System::start(dir).await?;
    let total = Duration::from_secs_f64(args.hours * 3600.0);
    let bar = ProgressBar::new(total.as_secs());
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {msg}") {
        bar.set_style(style);
    }
    let load = stress::Args {
        urls: vec![system.api_url.clone()],
        connections: args.connections,
        duration: ROUND.as_secs(),
        rate: Some(args.rate),
        ..stress::Args::quiet(Mode::Mixed)
    };
    let mut report = Report {
        hours: args.hours,
        rate: args.rate,
        bookings: 0,
        samples: Vec::new(),
        wrong: Vec::new(),
    };
    let began = Instant::now();
    let mut verifying: Option<JoinHandle<anyhow::Result<Verified>>> = None;
    while began.elapsed() < total {
        let outcome = stress::put_load(&load).await?;
        let mut sample = system.sample(began, &outcome).await?;
        bar.set_position(began.elapsed().as_secs());
        bar.set_message(format!(
            "{:.0} bookings/s, p99 {:.1} ms, api {:.0} MB",
            sample.bookings_per_second, sample.p99_ms, sample.api_mb
        ));
        report.bookings += outcome.load.booked();
        if let Some(before) = verifying.take() {
            sample.expiry_lag_p99_seconds = report.add(before.await??);
        }
        report.samples.push(sample);
        verifying = Some(tokio::spawn(verify_round(
            outcome,
            system.database.pool.clone(),
        )));
    }
    if let Some(last) = verifying {
        report.add(last.await??);
    }
    // The first sample has no expiry lag, because no round came before it.
    report.samples.remove(0);
    report.wrong.extend(trend::find_growth(&report.samples));
    let audit = audit::audit(&system.database, audit::DEFAULT_HOLD_LIMIT).await?;
    for invariant in audit.invariants.iter().filter(|found| found.broken > 0) {
        let wrong = format!("{}: {:?}", invariant.name, invariant.examples);
        report.wrong.push(wrong);
    }
    bar.finish_and_clear();
    system.database.pool.close().await;
    system.api.stop().await?;
    system.worker.stop().await?;
    Ok(report)
}

/// Result of the verification of a round, made after its holds have expired.
struct Verified {
    wrong: Vec<String>,
    expiry_lag_p99_seconds: f64,
}

async fn verify_round(outcome: Outcome, pool: PgPool) -> anyhow::Result<Verified> {
    let mut wrong = outcome.load.seen(|seen| {
        let errors = seen.errors.iter();
        errors
            .map(|(what, count)| format!("{what} ({count} times)"))
            .collect::<Vec<_>>()
    });
    let verification =
        verify::verify(&outcome, &verify::Expected::all_resolved(AT_REST_AFTER)).await?;
    wrong.extend(verification.faults);
    let lag = expiry_lag(&pool, &outcome.load.shows).await?;
    Ok(Verified {
        wrong,
        expiry_lag_p99_seconds: lag.map_or(0.0, |lag| lag.p99_seconds),
    })
}

impl Report {
    /// Adds a round's result, and returns its expiry lag in seconds.
    fn add(&mut self, verified: Verified) -> f64 {
        self.wrong.extend(verified.wrong);
        verified.expiry_lag_p99_seconds
    }
}

fn print(report: &Report) {
    let mut table = table::plain();
    table.set_header(["", "first third", "second third", "last third"]);
    let third = report.samples.len() / 3;
    let (first, rest) = report.samples.split_at(third);
    let (second, last) = rest.split_at(rest.len() - third);
    for steady in &trend::STEADY {
        let median = |samples| format!("{:.1}", trend::median_of(samples, steady.of));
        table.add_row([
            steady.name.to_owned(),
            median(first),
            median(second),
            median(last),
        ]);
    }
    table::align_figures(&mut table);
    println!(
        "{table}\n\n{} bookings in {:.2} hours",
        report.bookings, report.hours
    );
    for wrong in &report.wrong {
        println!("WRONG: {wrong}");
    }
    if report.wrong.is_empty() {
        println!("Nothing grew, no request failed, and every booking is as it was acknowledged.");
    }
}
