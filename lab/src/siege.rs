//! The command `ticketing-lab siege`: attacks a server, and measures how its other callers fare.

mod attack;
mod health;

use std::{env, fmt, process::Stdio, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use shared::{
    local_postgres::{LocalPostgres, Mode as ServerMode},
    process, shutdown,
};
use tokio::{process::Command, task::spawn_blocking, time::sleep};

use self::{
    attack::{Attack, Siege},
    health::HealthProbe,
};
use crate::{
    environment::{self, Environment},
    table,
    work_dir::WorkDir,
};

/// Attack a server, and measure how its other callers fare
///
/// Starts a private PostgreSQL server, and for each attack an `api` and a `worker` process from the
/// directory of this program (build them all first). A buyer books at a steady rate, first alone
/// and then under attack. The attackers share one API key and use the buyer's IP address. Exits
/// with 1 if under attack the buyer's rate falls below 0.8 of the rate alone or its p99 latency is
/// more than four times as long, if a health check fails or takes longer than a second, or if the
/// api exceeds its stated memory bound.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Attacks to run; by default all of them
    #[arg(value_enum)]
    attacks: Vec<Attack>,

    /// Duration of each measurement, in seconds; each attack has one without it and one with it
    #[arg(long, short, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3600))]
    duration: u64,

    /// Bookings per second of the buyer
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,

    /// Maximum number of open connections of the api; attacks on connections open a fifth more
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=50_000))]
    connections_max: u32,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Number of the buyer's connections.
const BUYER_CONNECTIONS: &str = "32";

/// Minimum acceptable ratio of the buyer's rate under attack to its rate alone.
const RATE_RATIO_MIN: f64 = 0.8;

/// Maximum acceptable ratio of the buyer's p99 latency under attack to its p99 latency alone.
const P99_RATIO_MAX: f64 = 4.0;

/// Maximum acceptable duration of a health check.
const HEALTH_MAX: Duration = Duration::from_secs(1);

/// Time for the attackers to connect before the buyer is measured.
const POSITION: Duration = Duration::from_secs(5);

/// Rate and latency of the buyer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Buyer {
    bookings_per_second: f64,
    latency_ms: Latency,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Latency {
    p50: f64,
    p99: f64,
}

/// Result of one attack.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    attack: String,
    alone: Buyer,
    attacked: Buyer,
    slowest_health_check_ms: f64,
    failed_health_checks: u32,
    /// Peak resident memory of the api.
    memory_mb: f64,
    memory_bound_mb: f64,
    attackers: attack::Counts,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    process::raise_open_files_limit();
    let dir = WorkDir::make(&env::temp_dir(), "siege")?;
    let stop = shutdown::on_signal()?;
    let result = stop
        .run_until_cancelled(besiege_with_all(&args, &dir))
        .await;
    dir.remove()?;
    let outcomes = result.context("interrupted")??;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&outcomes)?);
    } else {
        print(&outcomes);
    }
    if outcomes.iter().any(|outcome| !outcome.faults().is_empty()) {
        bail!("an attack harms other callers");
    }
    Ok(())
}

async fn besiege_with_all(args: &Args, dir: &WorkDir) -> anyhow::Result<Vec<Outcome>> {
    let data_dir = dir.join("postgres");
    // This mode does not wait for the disk, whose delays are far longer than those that an attacker
    // can cause.
    let server =
        spawn_blocking(move || LocalPostgres::start(&data_dir, ServerMode::Throwaway)).await??;
    let attacks = if args.attacks.is_empty() {
        Attack::value_variants()
    } else {
        &args.attacks
    };
    let bar = ProgressBar::new(attacks.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {bar} {msg}") {
        bar.set_style(style);
    }
    let mut outcomes = Vec::new();
    for attack in attacks {
        bar.set_message(attack.to_string());
        bar.tick();
        outcomes.push(besiege(args, &server, *attack).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(outcomes)
}

async fn besiege(args: &Args, server: &LocalPostgres, attack: Attack) -> anyhow::Result<Outcome> {
    let connections_max = args.connections_max.to_string();
    let api_args = [
        "--connections-max",
        &connections_max,
        "--requests-per-second",
        ATTACKERS_RATE,
    ];
    let environment = Environment::start_with(server, &api_args, Some(BUYERS_RATE)).await?;
    let worker = environment.start_worker().await?;
    let attackers_key =
        environment::make_key(&environment.connect().await?, "attackers", None).await?;
    // The api has read the new key by then.
    sleep(KEY_IS_KNOWN).await;
    let alone = buy(args, &environment).await?;

    let siege = Siege {
        target: environment.api_url.parse()?,
        key: attackers_key,
        connections: args.connections_max + args.connections_max / 5,
    };
    let attackers = siege.begin(attack);
    let probe = HealthProbe::start(&environment.api_url)?;
    sleep(POSITION).await;
    let attacked = buy(args, &environment).await?;
    let health = probe.stop().await?;
    let outcome = Outcome {
        attack: attack.to_string(),
        alone,
        attacked,
        slowest_health_check_ms: health.slowest.as_secs_f64() * 1000.0,
        failed_health_checks: health.failed,
        memory_mb: environment.api.peak_memory_mb().unwrap_or_default(),
        memory_bound_mb: environment.memory_bound_mb,
        attackers: attackers.end().await,
    };
    worker.stop().await?;
    environment.clear().await?;
    Ok(outcome)
}

/// Rate limit of the attackers' key: the default where other machines can reach the listener.
const ATTACKERS_RATE: &str = "1000";

/// Rate limit of the buyer's key: more than the buyer uses.
const BUYERS_RATE: u32 = 100_000;

/// Time until the api knows a new key. It reads the keys once per second.
const KEY_IS_KNOWN: Duration = Duration::from_secs(2);

/// Books for the configured duration.
///
/// It runs in a separate process, because this one is busy with the attack.
async fn buy(args: &Args, environment: &Environment<'_>) -> anyhow::Result<Buyer> {
    let output = Command::new(env::current_exe()?)
        .args(["stress", "hot", "--json", "--quiet"])
        .args(["--url", &environment.api_url])
        .args(["--connections", BUYER_CONNECTIONS])
        .args(["--rate", &args.rate.to_string()])
        .args(["--duration", &args.duration.to_string()])
        .env(
            "TICKETING_API_KEY",
            environment.api_key.as_deref().unwrap_or(""),
        )
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "the buyer's process ended with {}",
        output.status
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

impl Outcome {
    fn rate_ratio(&self) -> f64 {
        self.attacked.bookings_per_second / self.alone.bookings_per_second
    }

    fn p99_ratio(&self) -> f64 {
        self.attacked.latency_ms.p99 / self.alone.latency_ms.p99
    }

    /// Returns the names of the missed targets.
    fn faults(&self) -> Vec<&'static str> {
        let faults = [
            (self.rate_ratio() < RATE_RATIO_MIN, "fewer bookings"),
            (self.p99_ratio() > P99_RATIO_MAX, "higher latency"),
            (
                self.slowest_health_check_ms > HEALTH_MAX.as_secs_f64() * 1000.0,
                "slow health check",
            ),
            (self.failed_health_checks > 0, "failed health check"),
            (self.memory_mb > self.memory_bound_mb, "too much memory"),
        ];
        let missed = faults.into_iter().filter(|(is_missed, _)| *is_missed);
        missed.map(|(_, name)| name).collect()
    }
}

impl fmt::Display for Buyer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { p50, p99 } = self.latency_ms;
        write!(f, "{:.0}/s {p50:.1}/{p99:.1} ms", self.bookings_per_second)
    }
}

fn print(outcomes: &[Outcome]) {
    let mut table = table::plain();
    table.set_header([
        "attack",
        "alone: bookings, p50/p99",
        "under attack",
        "rate",
        "p99",
        "health",
        "memory",
        "bound",
        "",
    ]);
    for outcome in outcomes {
        table.add_row([
            outcome.attack.clone(),
            outcome.alone.to_string(),
            outcome.attacked.to_string(),
            format!("{:.2}", outcome.rate_ratio()),
            format!("{:.1}x", outcome.p99_ratio()),
            format!("{:.0} ms", outcome.slowest_health_check_ms),
            format!("{:.0} MB", outcome.memory_mb),
            format!("{:.0} MB", outcome.memory_bound_mb),
            outcome.faults().join(", "),
        ]);
    }
    table::align_figures(&mut table);
    println!("{table}");
    for outcome in outcomes {
        println!("{}: {}", outcome.attack, outcome.attackers);
    }
}
