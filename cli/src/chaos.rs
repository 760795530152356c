//! `ticketing chaos`

mod fault;
mod system;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use chrono::TimeDelta;
use indicatif::ProgressBar;
use serde::Serialize;
use shared::{audit, booking::expire, postgres::Database, shutdown};
use tokio::time::{Instant, sleep, sleep_until};

use self::{
    fault::{Planned, plan},
    system::System,
};
use crate::{
    stress::{self, Mode, Outcome, verify},
    work_dir::WorkDir,
};

/// Kill what can be killed while bookings come in, and verify that nothing is lost
///
/// Starts a PostgreSQL of its own with durable settings, and two `api` and two `worker` programs from beside this one
/// (build them all first). In each round clients book, confirm, cancel and let expire, and write down what they are
/// told, while programs and database are killed, restarted, suspended and cut off at moments that the seed decides.
/// Afterwards every booking must be as it was acknowledged, every seat be back in time, and every invariant hold.
/// Exits with 1 and the seed that repeats it when something is wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many rounds; each takes about a minute
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,

    /// Decides which faults happen and when: of the first round; the next ones have the next numbers [default: random]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,

    /// How long clients book in each round
    #[arg(long, value_name = "SECONDS", default_value_t = 12, value_parser = clap::value_parser!(u64).range(5..=600))]
    load_seconds: u64,

    /// How many clients book at the same time
    #[arg(long, short, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=5000))]
    connections: u32,

    /// Where a directory for the database and the logs is made; it stays when something is wrong
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    data_dir: PathBuf,

    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// How late a hold may fail: a job in the hands of a worker that vanished is given to another one after 30 s, looked
/// for every 5 s; and while the database is away, and shortly after, nobody can fail anything.
const LATE_LIMIT: Duration = Duration::from_secs(50);

/// What all rounds came to.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    rounds: u32,
    /// How often each fault happened.
    faults: BTreeMap<String, u32>,
    /// Requests that were answered.
    answered: u64,
    /// Bookings that were acknowledged.
    acknowledged: u64,
    /// Requests without an answer, or with one that says that the server can't.
    errors: BTreeMap<String, u64>,
    /// The longest that a hold was overdue before it was failed.
    latest_seconds: f64,
    /// What was found to be wrong. The last round is the only one that can have something.
    wrong: Vec<String>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let dir = WorkDir::make(&args.data_dir, "chaos")?;
    // What was started ends with us, also when we are told to stop.
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
            "round {} failed: {}; its logs are in {}, and this repeats it:\n  ticketing chaos --rounds 1 --seed {}",
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
    bar.set_message("starting PostgreSQL, two apis, two workers");
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
    // What was acknowledged before the faults of later rounds has survived those too.
    for outcome in &outcomes {
        let verification =
            verify::verify(outcome, &verify::Expected::all_resolved(Duration::ZERO)).await?;
        summary.wrong.extend(verification.faults);
    }
    system.stop().await?;
    bar.finish_and_clear();
    Ok(summary)
}

/// Puts load on the system while the planned faults happen, and then lets it come to rest.
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
        // In every other round clients send what was not answered again.
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
        bar.set_message("coming to rest");
        system.heal().await
    };
    let (outcome, faults) = tokio::join!(stress::put_load(&load), faults);
    faults?;
    outcome
}

/// What a round came to.
struct Found {
    latest_seconds: f64,
    wrong: Vec<String>,
}

async fn judge(outcome: &Outcome, system: &mut System) -> anyhow::Result<Found> {
    let mut wrong = outcome.load.seen(|seen| {
        let unexpected = seen.errors.iter().filter(|(what, _)| !is_expected(what));
        unexpected
            .map(|(what, count)| format!("{count} times {what}"))
            .collect::<Vec<_>>()
    });
    let ended = system.find_ended();
    if !ended.is_empty() {
        // Nobody is there to ask.
        wrong.push(format!("{} ended by itself", ended.join(", ")));
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
    let latest_seconds = expire::lag(&database.pool, &outcome.load.shows)
        .await?
        .map_or(0.0, |lag| lag.longest_seconds);
    if latest_seconds > LATE_LIMIT.as_secs_f64() {
        wrong.push(format!("a hold was failed {latest_seconds:.1} s late"));
    }
    database.pool.close().await;
    Ok(Found {
        latest_seconds,
        wrong,
    })
}

/// Waits until the holds that have run out, which readers see as failed at once, have failed in the table as well. Those that
/// have not after [`LATE_LIMIT`] are left for the audit to find.
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

/// Whether a client must live with it while programs and database go away: no answer, "come again", and too late.
fn is_expected(error: &str) -> bool {
    error.starts_with("connection: ")
        || error.ends_with(": 503")
        || ["confirm: 409", "cancel: 409"].contains(&error)
}

impl Summary {
    /// Adds a round, and returns it in a line.
    fn add(&mut self, plan: &[Planned], outcome: &Outcome, found: Found) -> String {
        let acknowledged = outcome.told.acknowledged.len();
        let errors = outcome.load.seen(|seen| seen.errors.clone());
        let faults: Vec<String> = plan
            .iter()
            .map(|Planned { at, fault }| format!("{fault} at {:.1} s", at.as_secs_f64()))
            .collect();
        let line = format!(
            "{}; {acknowledged} acknowledged, {} errors; latest hold failed {:.1} s late; {}",
            faults.join(", "),
            errors.values().sum::<u64>(),
            found.latest_seconds,
            if found.wrong.is_empty() {
                "ok"
            } else {
                "WRONG"
            },
        );
        for planned in plan {
            *self
                .faults
                .entry(planned.fault.kind().to_owned())
                .or_default() += 1;
        }
        for (what, count) in errors {
            *self.errors.entry(what).or_default() += count;
        }
        self.answered += outcome.load.requests();
        self.acknowledged += acknowledged as u64;
        self.latest_seconds = self.latest_seconds.max(found.latest_seconds);
        self.wrong = found.wrong;
        line
    }

    fn print(&self) {
        println!("\n{} rounds", self.rounds);
        for (fault, count) in &self.faults {
            println!("{count:>8} {fault}");
        }
        println!(
            "{} requests were answered, {} bookings acknowledged",
            self.answered, self.acknowledged
        );
        for (error, count) in &self.errors {
            println!("{count:>8} {error}");
        }
        println!("the latest hold failed {:.1} s late", self.latest_seconds);
        for wrong in &self.wrong {
            println!("WRONG: {wrong}");
        }
        if self.wrong.is_empty() {
            println!(
                "Every booking is as it was acknowledged, every seat is back, every invariant holds."
            );
        }
    }
}
