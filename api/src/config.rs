//! The settings of the API server.

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
/// Start as many as you like on one database; nothing is kept between requests. SIGTERM or Ctrl-C lets the
/// requests in hand finish.
#[derive(Debug, Clone, Parser)]
#[command(name = "api", version)]
pub struct Args {
    #[command(flatten)]
    /// Where the database is.
    pub database: DatabaseArgs,
    #[command(flatten)]
    /// How the API is served.
    pub config: Config,
    #[command(flatten)]
    /// What it logs.
    pub log: LogArgs,
}

/// Maximum length of a request body, in bytes. The longest valid body is shorter than 2 KiB.
pub(crate) const MAX_BODY_BYTES: usize = 16 * 1024;

/// The most lanes: as many processors as a big database server has for them.
pub const BATCH_LANES_MAX: u8 = 64;

/// How the API is served.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "api")]
pub struct Config {
    /// The address and port that the API listens on; port 0 takes a free one
    #[arg(
        long,
        env = "API_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:5000"
    )]
    pub listen: SocketAddr,

    /// Where the dashboard, the queue and the figures for Prometheus are served [default: 127.0.0.1:5001, or a free port where
    /// that is taken]
    ///
    /// On any other than a loopback address it asks for an API key with the scope `admin`.
    #[arg(long, env, value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<SocketAddr>,

    /// The most concurrent requests that share a transaction; with 1 each has its own
    #[arg(long, env = "BATCH_MAX", value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub batch_max: u16,

    /// How many such transactions of one kind may be at the database at the same time [default: 1; on Citus 16]
    ///
    /// All requests for a show go through the same lane. More than one pays only where cores are idle, and on Citus, where
    /// a transaction is for one show.
    #[arg(long, env = "BATCH_LANES", value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(BATCH_LANES_MAX)))]
    pub batch_lanes: Option<u8>,

    /// The most requests that wait for a lane; more are answered with 503 at once
    #[arg(long, env = "QUEUE_MAX", value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub queue_max: u32,

    #[command(flatten)]
    /// Who may call, and how often.
    pub callers: CallerArgs,

    /// Ask for no API key, whoever can reach the address
    #[arg(long, env = "API_INSECURE", conflicts_with = "require_keys")]
    pub insecure: bool,

    /// The most requests that are worked on at the same time; more are answered with 503 at once
    #[arg(long, env = "IN_FLIGHT_MAX", value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub in_flight_max: u32,

    /// The most connections that are open at the same time; one more takes the place of one that is idle
    ///
    /// Fewer where the process may not open so many files, or half of its memory does not suffice for them: it says so.
    #[arg(long, env = "CONNECTIONS_MAX", value_name = "N", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections_max: u32,

    /// For how many seconds it goes on to serve once it is told to stop, while `/health/ready` answers 503 and each answer closes
    /// its connection
    ///
    /// Behind a proxy, longer than the proxy takes to notice: no request fails then.
    #[arg(long, env = "API_LINGER_SECONDS", value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=300))]
    pub linger_seconds: u16,

    /// Web pages that may use the API from a browser, such as `https://tickets.example`; several with commas between
    /// them, `*` for all. By default none
    #[arg(
        long,
        env = "CORS_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ',',
        value_parser = cors::origin
    )]
    pub cors_origins: Vec<HeaderValue>,
}

/// How many transactions of one kind may be at the database at the same time where each is for one show.
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
