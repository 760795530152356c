//! Command-line settings of the worker.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use shared::{
    http::callers::CallerArgs, postgres::DatabaseArgs, queue::housekeeping::Retention,
    telemetry::LogArgs,
};

/// Runs the background jobs of ticketing: fails expired holds and returns their seats.
///
/// Start as many workers as you like; each job is run by one of them. SIGTERM or Ctrl-C lets
/// running jobs finish.
#[derive(Debug, Clone, Parser)]
#[command(name = "worker", version)]
pub struct Args {
    #[command(flatten)]
    /// Settings of the database connections.
    pub database: DatabaseArgs,
    #[command(flatten)]
    /// Settings of the worker.
    pub config: Config,
    #[command(flatten)]
    /// Settings for callers of the metrics.
    pub callers: CallerArgs,
    #[command(flatten)]
    /// Settings for logging.
    pub log: LogArgs,
}

/// Settings of a worker.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "worker")]
pub struct Config {
    /// Maximum number of jobs of a queue that one worker runs at the same time
    #[arg(long, env = "WORKER_CONCURRENCY", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,

    /// Address of the Prometheus metrics, at /metrics [default: 127.0.0.1:5002, or a free port if
    /// that is taken]
    ///
    /// Other machines need an API key with the scope `admin`.
    #[arg(long, env, value_name = "ADDRESS:PORT")]
    pub worker_listen: Option<SocketAddr>,

    /// Seconds between two rounds of the janitor, which only one of all workers runs
    #[arg(long, env = "JANITOR_SECONDS", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub janitor_seconds: u16,

    /// Seconds that a hold is overdue before the janitor expires it instead of its job
    #[arg(long, env = "OVERDUE_GRACE_SECONDS", value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=3600))]
    pub overdue_grace_seconds: u16,

    /// Hours that a finished job is kept
    #[arg(long, env, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u16).range(0..=8760))]
    pub keep_done_hours: u16,

    /// Maximum number of finished jobs that are kept; the oldest are deleted first
    #[arg(long, env, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub keep_done_jobs: u32,

    /// Days that a dead job is kept, for inspection
    #[arg(long, env, value_name = "DAYS", default_value_t = 14, value_parser = clap::value_parser!(u16).range(0..=3650))]
    pub keep_dead_days: u16,

    /// Hours that an idempotency key is remembered after its first use
    #[arg(long, env, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=8760))]
    pub keep_keys_hours: u16,

    /// Seconds of failing to work, such as without a database, after which the worker exits
    ///
    /// It exits with an error.
    #[arg(long, env, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub give_up_seconds: u16,
}

impl Config {
    pub(crate) fn janitor_interval(&self) -> Duration {
        Duration::from_secs(self.janitor_seconds.into())
    }

    pub(crate) fn retention(&self) -> Retention {
        Retention {
            done: Duration::from_secs(u64::from(self.keep_done_hours) * 3600),
            done_max: self.keep_done_jobs.into(),
            dead: Duration::from_secs(u64::from(self.keep_dead_days) * 86_400),
        }
    }

    pub(crate) fn keys_kept(&self) -> Duration {
        Duration::from_secs(u64::from(self.keep_keys_hours) * 3600)
    }

    pub(crate) fn give_up_after(&self) -> Duration {
        Duration::from_secs(self.give_up_seconds.into())
    }

    pub(crate) fn overdue_grace(&self) -> chrono::TimeDelta {
        chrono::TimeDelta::seconds(self.overdue_grace_seconds.into())
    }
}
