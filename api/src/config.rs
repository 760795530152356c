//! Command-line settings of the api.

use std::{net::SocketAddr, time::Duration};

use axum::http::HeaderValue;
use clap::Parser;
use shared::{
    http::callers::CallerArgs,
    postgres::{DatabaseArgs, Engine},
    telemetry::LogArgs,
};

use crate::{cors, group_commit::Limits};

/// Serves the HTTP API of ticketing: shows, bookings, confirmations.
///
/// Start as many apis as you like on one database, which holds all shows and bookings. SIGTERM or
/// Ctrl-C lets requests in flight finish.
#[derive(Debug, Clone, Parser)]
#[command(name = "api", version)]
pub struct Args {
    #[command(flatten)]
    /// Settings of the database connections.
    pub database: DatabaseArgs,
    #[command(flatten)]
    /// Settings of the api.
    pub config: Config,
    #[command(flatten)]
    /// Settings for logging.
    pub log: LogArgs,
}

/// Maximum length of a request body, in bytes. The longest valid body is shorter than 2 KiB.
pub(crate) const MAX_BODY_BYTES: usize = 16 * 1024;

/// Maximum length of the body of a bulk request, in bytes.
///
/// 500 bookings with the longest names and keys take 570,500 bytes.
pub(crate) const MAX_BULK_BODY_BYTES: usize = 640 * 1024;

/// Maximum of `--batch-lanes`: the number of processors that a big database server has for lanes.
pub const BATCH_LANES_MAX: u8 = 64;

/// Settings of the api.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "api")]
pub struct Config {
    /// Address and port of the API; port 0 takes a free one
    #[arg(
        long,
        env = "API_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:5000"
    )]
    pub listen: SocketAddr,

    /// Address of the dashboard, the admin API and the Prometheus metrics
    /// [default: 127.0.0.1:5001, or a free port if that is taken]
    ///
    /// On any address other than a loopback address, requests need an API key with the scope
    /// `admin`.
    #[arg(long, env, value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<SocketAddr>,

    /// Maximum number of concurrent requests that share a transaction; with 1 each has its own
    #[arg(long, env = "BATCH_MAX", value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub batch_max: u16,

    /// Maximum number of shared transactions in flight (lanes) for each kind of request
    /// [default: 1; on Citus 16]
    ///
    /// All requests for a show go through the same lane. More than one lane helps only if cores are
    /// idle, and on Citus, where a transaction is for one show.
    #[arg(long, env = "BATCH_LANES", value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(BATCH_LANES_MAX)))]
    pub batch_lanes: Option<u8>,

    /// Maximum number of requests that wait for a lane; more are answered with 503 at once
    ///
    /// Each booking of a bulk request counts as one. Bulk requests use half of it at most.
    #[arg(long, env = "QUEUE_MAX", value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub queue_max: u32,

    #[command(flatten)]
    /// Settings for callers.
    pub callers: CallerArgs,

    /// Require no API key, even if other machines can reach the API
    #[arg(long, env = "API_INSECURE", conflicts_with = "require_keys")]
    pub insecure: bool,

    /// Maximum number of requests in flight; more are answered with 503 at once
    #[arg(long, env = "IN_FLIGHT_MAX", value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub in_flight_max: u32,

    /// Maximum number of open connections; a new one beyond it closes an idle one
    ///
    /// It is lower if the process may not open that many files, or if half of its memory does not
    /// suffice for them. The api logs a warning then.
    #[arg(long, env = "CONNECTIONS_MAX", value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections_max: u32,

    /// Seconds to continue serving after a signal to stop, while `/health/ready` answers 503 and
    /// each response closes its connection
    ///
    /// Behind a proxy, set it to more than the proxy takes to notice: no request fails then.
    #[arg(long, env = "API_LINGER_SECONDS", value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=300))]
    pub linger_seconds: u16,

    /// Origins of web pages that may use the API, such as `https://tickets.example`;
    /// comma-separated, `*` for all, by default none
    #[arg(
        long,
        env = "CORS_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ',',
        value_parser = cors::origin
    )]
    pub cors_origins: Vec<HeaderValue>,
}

/// Default number of lanes on Citus, where each transaction is for one show.
const CITUS_LANES: u8 = 16;

impl Config {
    pub(crate) fn linger(&self) -> Duration {
        Duration::from_secs(self.linger_seconds.into())
    }

    pub(crate) fn limits(&self, engine: Engine) -> Limits {
        let lanes = match engine {
            Engine::Postgres => 1,
            Engine::Citus => CITUS_LANES,
        };
        Limits {
            batch_max: self.batch_max.into(),
            lanes: self.batch_lanes.unwrap_or(lanes).into(),
            queue_max: usize::try_from(self.queue_max).unwrap_or(usize::MAX),
        }
    }
}
