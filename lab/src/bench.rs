//! The command `ticketing-lab bench`: measures group commit against a transaction per booking.

mod admin_latency;
mod chart;
mod database_limit;
mod fill;
mod loads;
mod peer;
mod report;
mod trials;

use std::{fs, path::PathBuf};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use shared::local_postgres::{LocalPostgres, Mode as Durability};

use self::{
    loads::{CASES, COMPARED, LIMITED, PAIRS},
    peer::Peer,
    report::{Case, Comparison, Contender, Measured, Report},
    trials::Trials,
};
use crate::{
    cost,
    environment::Environment,
    stress::{self, Mode},
};

/// Measure group commit against a transaction per booking, and both against the database alone
///
/// Starts a private PostgreSQL server with durable settings, and for each measurement a fresh
/// database and an `api` process from the directory of this program (build all programs with
/// --release first). The two ways alternate (A B A B …), and medians are reported. Prints tables;
/// writes bench.json and bench.svg.
///
/// With PEERS=1 in the environment, and `redis-server` installed, it also measures what many would
/// build instead: Redis with a script that reserves, and an HTTP server in front of it.
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
    let peer = Peer::find(&args.data_dir)?;
    let contenders = if peer.is_some() { 3 } else { 2 };
    let pairs = Circumstance::ALL.len() as u64 * u64::from(PAIRS);
    let steps =
        (CASES.len() as u64 * contenders + 2 * pairs + 1) * u64::from(args.runs) + trials::COUNT;
    let bar = ProgressBar::new(steps).with_style(
        ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg}")
            .context("the progress bar's template is invalid")?,
    );
    let mut limit = Vec::new();
    let mut cases = Vec::new();
    for (mode, connections) in CASES {
        let mut case = Case::new(mode, connections);
        let load = load(args, (mode, connections));
        for _ in 0..args.runs {
            for (contender, batch_max) in [
                (Contender::OneByOne, 1),
                (Contender::Grouped, args.batch_max),
            ] {
                bar.set_message(
                    format!("{mode:?}, {connections} connections, batches of {batch_max}")
                        .to_lowercase(),
                );
                let environment = Environment::start(server, batch_max).await?;
                case.add(contender, measure_once(&environment, &load).await?);
                environment.clear().await?;
                bar.inc(1);
            }
            if let Some(peer) = &peer
                && mode == Mode::Hot
            {
                bar.set_message(format!("hot, {connections} connections, Redis"));
                case.add(Contender::Peer, peer.measure(&load).await?);
            }
            bar.inc(contenders - 2);
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
    let mut comparisons = Vec::new();
    for circumstance in Circumstance::ALL {
        comparisons.push(compare(args, server, &bar, circumstance).await?);
    }
    let trials = run_trials(args, server, &bar).await?;
    bar.finish_and_clear();
    Report::new(args.batch_max, cases, limit, comparisons, trials, server).await
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
    bar.set_message("5,000 bookings per second, each when it is due");
    let open_loop = trials::open_loop(server, args.batch_max).await?;
    bar.inc(1);
    bar.set_message("admin listener with 1,000,000 jobs and bookings");
    let admin = admin_latency::measure(server, args.batch_max).await?;
    bar.inc(1);
    Ok(Trials {
        crowd,
        backlog,
        steady,
        open_loop,
        admin,
    })
}

/// Returns this load, for as long as the arguments say.
fn load(args: &Args, (mode, connections): (Mode, u32)) -> stress::Args {
    stress::Args {
        connections,
        duration: args.seconds,
        ..stress::Args::quiet(mode)
    }
}

/// Measures a load once on this environment.
async fn measure_once(
    environment: &Environment<'_>,
    load: &stress::Args,
) -> anyhow::Result<Measured> {
    let (report, cost) = cost::of_load(environment, load).await?;
    Ok(Measured::new(&report, cost))
}

/// Rate limit that is counted but never reached, in requests per second.
const UNREACHED_RATE: u32 = 1_000_000;

/// Number of bookings of a large database.
const MANY_BOOKINGS: i64 = 5_000_000;

/// Lifetime of holds that run out during a measurement, in seconds; the shortest that a show can
/// have.
const SHORT_HOLD: u32 = 10;

/// Time after which as many of these holds run out as are made, in seconds.
const RUN_OUT_AFTER: u64 = 12;

/// Circumstance in half of the measurements of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Circumstance {
    /// API keys and rate limits are in use.
    Keys,
    /// A dashboard is open.
    Dashboard,
    /// The database has [`MANY_BOOKINGS`].
    ManyBookings,
    /// All holds run out, and a worker fails them. The other half has a worker too.
    HoldsRunOut,
}

impl Circumstance {
    const ALL: [Self; 4] = [
        Self::Keys,
        Self::Dashboard,
        Self::ManyBookings,
        Self::HoldsRunOut,
    ];

    fn load(self) -> (Mode, u32) {
        match self {
            Self::ManyBookings => LIMITED,
            Self::Keys | Self::Dashboard | Self::HoldsRunOut => COMPARED,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Keys => "API keys and rate limits",
            Self::Dashboard => "the dashboard open",
            Self::ManyBookings => "5,000,000 bookings in the database",
            Self::HoldsRunOut => "holds that all run out",
        }
    }
}

/// Measures bookings of a hot show under this circumstance and without it, alternately.
async fn compare(
    args: &Args,
    server: &LocalPostgres,
    bar: &ProgressBar,
    circumstance: Circumstance,
) -> anyhow::Result<Comparison> {
    let mut comparison = Comparison::new(circumstance.load(), circumstance.name());
    let full = match circumstance {
        Circumstance::ManyBookings => {
            bar.set_message("creating 5,000,000 bookings");
            Some(with_many_bookings(args, server).await?)
        }
        Circumstance::Keys | Circumstance::Dashboard | Circumstance::HoldsRunOut => None,
    };
    // More pairs than elsewhere, because the difference is expected to be small.
    for _ in 0..args.runs * PAIRS {
        for is_there in [false, true] {
            let with = if is_there { "with" } else { "without" };
            bar.set_message(format!("hot, {with} {}", circumstance.name()));
            let measured = match &full {
                Some(full) if is_there => {
                    measure_once(full, &load(args, circumstance.load())).await?
                }
                _ => measure_under(args, server, circumstance, is_there).await?,
            };
            if is_there {
                comparison.with.push(measured);
            } else {
                comparison.without.push(measured);
            }
            bar.inc(1);
        }
    }
    if let Some(full) = full {
        full.clear().await?;
    }
    Ok(comparison)
}

/// Measures once on a fresh database, and under the circumstance if it `is_there`.
async fn measure_under(
    args: &Args,
    server: &LocalPostgres,
    circumstance: Circumstance,
    is_there: bool,
) -> anyhow::Result<Measured> {
    let rate = (is_there && circumstance == Circumstance::Keys).then_some(UNREACHED_RATE);
    let batch_max = args.batch_max.to_string();
    let environment = Environment::start_with(server, &["--batch-max", &batch_max], rate).await?;
    let page = (is_there && circumstance == Circumstance::Dashboard)
        .then(|| admin_latency::open_page(&environment.admin_url))
        .transpose()?;
    let mut load = load(args, circumstance.load());
    let mut worker = None;
    if circumstance == Circumstance::HoldsRunOut {
        worker = Some(environment.start_worker().await?);
        load.warm_up = RUN_OUT_AFTER;
        load.hold_seconds = is_there.then_some(SHORT_HOLD);
    }
    let measured = measure_once(&environment, &load).await?;
    drop(page);
    if let Some(worker) = worker {
        worker.stop().await?;
    }
    environment.clear().await?;
    Ok(measured)
}

async fn with_many_bookings<'s>(
    args: &Args,
    server: &'s LocalPostgres,
) -> anyhow::Result<Environment<'s>> {
    let environment = Environment::start(server, args.batch_max).await?;
    let pool = environment.connect().await?.pool;
    fill::fill(&pool, MANY_BOOKINGS, 100).await?;
    pool.close().await;
    Ok(environment)
}
