//! The command `ticketing-lab chaos`: injects faults under load and verifies the result.

mod fault;
mod summary;
mod system;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use chrono::TimeDelta;
use indicatif::ProgressBar;
use shared::{audit, booking::expire, postgres::Database, shutdown};
use tokio::time::{Instant, sleep, sleep_until};

use self::{
    fault::{Planned, plan},
    summary::{Found, Summary},
    system::System,
};
use crate::{
    expiry_lag::expiry_lag,
    stress::{self, Mode, Outcome, verify},
    work_dir::WorkDir,
};

/// Inject faults while clients book, and verify that nothing is lost
///
/// Starts a private PostgreSQL server with durable settings, and two `api` and two `worker`
/// processes from the directory of this program (build them all first). In each round, clients
/// book, confirm, cancel and let holds expire, and record what the server acknowledged. Meanwhile
/// processes and database are killed, restarted, suspended and disconnected, at times that the seed
/// decides. Afterwards every booking must be as it was acknowledged, every seat must be available
/// again in time, and every invariant must hold. Otherwise it exits with 1 and prints the seed that
/// repeats the round.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of rounds; each takes about a minute
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,

    /// Seed of the first round, which decides the faults and their times [default: random]
    ///
    /// Each further round has the next higher seed.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,

    /// Duration of the load in each round, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 12, value_parser = clap::value_parser!(u64).range(5..=600))]
    load_seconds: u64,

    /// Number of clients
    #[arg(long, short, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=5000))]
    connections: u32,

    /// Parent of the directory for database and logs
    ///
    /// The directory is removed at the end, except after a failure.
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    data_dir: PathBuf,

    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// Maximum time from the deadline of a hold until it fails.
///
/// The job of a worker that vanished goes to another worker after 30 s; the queue looks for such
/// jobs every 5 s. While the database is away, and shortly after, no worker can fail a hold.
const LATE_LIMIT: Duration = Duration::from_secs(50);

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let dir = WorkDir::make(&args.data_dir, "chaos")?;
    // On a signal, dropping the future also ends the processes that it started.
    let stop = shutdown::on_signal()?;
    let Some(result) = stop
        .run_until_cancelled(run_rounds(&args, seed, &dir))
        .await
    else {
        dir.remove()?;
        bail!("interrupted");
    };
    let summary = result.with_context(|| format!("the logs are in {}", dir.display()))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        summary.print();
    }
    if !summary.wrong.is_empty() {
        bail!(
            "round {} failed: {}; its logs are in {}. To repeat it:\n  \
             ticketing-lab chaos --rounds 1 --seed {}",
            summary.rounds,
            summary.wrong.join("; "),
            dir.display(),
            seed + u64::from(summary.rounds) - 1,
        );
    }
    dir.remove()
}

async fn run_rounds(args: &Args, seed: u64, dir: &Path) -> anyhow::Result<Summary> {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(100));
    bar.set_message("starting PostgreSQL, two apis and two workers");
    let mut system = System::start(dir).await?;
    let mut summary = Summary::default();
    let mut outcomes = Vec::new();
    for round in 0..args.rounds {
        summary.rounds += 1;
        let seed = seed + u64::from(round);
        let plan = plan(seed, Duration::from_secs(args.load_seconds));
        let began = Instant::now();
        let round = async {
            let outcome = run_round(args, seed, &plan, &mut system, &bar).await?;
            bar.set_message("verifying");
            let found = judge(&outcome, &mut system).await?;
            anyhow::Ok((outcome, found))
        };
        let (outcome, found) = round
            .await
            .with_context(|| format!("round {} (seed {seed})", summary.rounds))?;
        let line = summary.add(&plan, &outcome, found);
        bar.suspend(|| {
            eprintln!(
                "round {} (seed {seed}, {} s): {line}",
                summary.rounds,
                began.elapsed().as_secs()
            );
        });
        if !summary.wrong.is_empty() {
            return Ok(summary);
        }
        outcomes.push(outcome);
    }
    // Bookings of earlier rounds must also have survived the faults of later rounds.
    for outcome in &outcomes {
        let verification =
            verify::verify(outcome, &verify::Expected::all_resolved(Duration::ZERO)).await?;
        summary.wrong.extend(verification.faults);
    }
    system.stop().await?;
    bar.finish_and_clear();
    Ok(summary)
}

/// Puts load on the system, injects the planned faults, and resumes suspended workers.
async fn run_round(
    args: &Args,
    seed: u64,
    plan: &[Planned],
    system: &mut System,
    bar: &ProgressBar,
) -> anyhow::Result<Outcome> {
    bar.set_message("booking");
    let load = stress::Args {
        urls: system.api_urls(),
        connections: args.connections,
        duration: args.load_seconds,
        // In every other round, clients retry unanswered requests.
        retries: seed % 2 == 1,
        ..stress::Args::quiet(Mode::Mixed)
    };
    let began = Instant::now();
    let faults = async {
        for planned in plan {
            sleep_until(began + planned.at).await;
            bar.set_message(planned.fault.to_string());
            system
                .suffer(planned.fault)
                .await
                .with_context(|| planned.fault.to_string())?;
        }
        bar.set_message("resuming suspended workers");
        system.heal().await
    };
    let (outcome, faults) = tokio::join!(stress::put_load(&load), faults);
    faults?;
    outcome
}

async fn judge(outcome: &Outcome, system: &mut System) -> anyhow::Result<Found> {
    let mut wrong = outcome.load.seen(|seen| {
        let unexpected = seen.errors.iter().filter(|(what, _)| !is_expected(what));
        unexpected
            .map(|(what, count)| format!("{what} ({count} times)"))
            .collect::<Vec<_>>()
    });
    let ended = system.find_ended();
    if !ended.is_empty() {
        // The verification would ask an api that may be the one that exited.
        wrong.push(format!("{} exited unexpectedly", ended.join(", ")));
        return Ok(Found {
            latest_seconds: 0.0,
            wrong,
        });
    }
    let verification = verify::verify(outcome, &verify::Expected::all_resolved(LATE_LIMIT)).await?;
    wrong.extend(verification.faults);

    let database = system.connect().await?;
    expired_for_good(&database).await?;
    let audit = audit::audit(&database, Duration::ZERO).await?;
    for invariant in audit.invariants.iter().filter(|found| found.broken > 0) {
        wrong.push(format!("{}: {:?}", invariant.name, invariant.examples));
    }
    let latest_seconds = expiry_lag(&database.pool, &outcome.load.shows)
        .await?
        .map_or(0.0, |lag| lag.longest_seconds);
    if latest_seconds > LATE_LIMIT.as_secs_f64() {
        wrong.push(format!("a hold failed {latest_seconds:.1} s late"));
    }
    database.pool.close().await;
    Ok(Found {
        latest_seconds,
        wrong,
    })
}

/// Waits until expired holds have failed in the table.
///
/// The API shows them as failed at once. Holds that have not failed after [`LATE_LIMIT`] are left
/// for the audit to find.
async fn expired_for_good(database: &Database) -> anyhow::Result<()> {
    let deadline = Instant::now() + LATE_LIMIT;
    while Instant::now() < deadline
        && !expire::find_overdue_shows(&database.pool, TimeDelta::zero())
            .await?
            .is_empty()
    {
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Returns whether an error is to be expected while processes and database go away.
///
/// Expected are lost connections, 503, and a confirm or cancel that comes too late.
fn is_expected(error: &str) -> bool {
    error.starts_with("connection: ")
        || error.ends_with(": 503")
        || ["confirm: 409", "cancel: 409"].contains(&error)
}
