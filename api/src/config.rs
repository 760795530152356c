//! The settings of the API server.

use std::{net::SocketAddr, num::NonZeroU32, time::Duration};

use axum::http::HeaderValue;
use clap::Parser;
use ipnet::IpNet;
use shared::{
    postgres::{DatabaseArgs, Engine},
    telemetry::LogArgs,
};

use crate::group_commit::Limits;

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

    /// Ask for API keys on a loopback address too, where by default everybody is let in
    #[arg(long, env = "API_REQUIRE_KEYS", conflicts_with = "insecure")]
    pub require_keys: bool,

    /// Ask for no API key, whoever can reach the address
    #[arg(long, env = "API_INSECURE")]
    pub insecure: bool,

    /// How many requests a second each API key may send, and without keys each address; 0: no limit [default: no limit
    /// on a loopback address, else 1000]
    ///
    /// A key can have its own rate. Each api process counts for itself.
    #[arg(long, env = "REQUESTS_PER_SECOND", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub requests_per_second: Option<u32>,

    /// Networks of proxies whose `X-Forwarded-For` tells the client's address, such as 10.0.0.0/8; several with commas
    /// between them
    #[arg(
        long,
        env = "TRUSTED_PROXIES",
        value_name = "NETWORK",
        value_delimiter = ','
    )]
    pub trusted_proxies: Vec<IpNet>,

    /// The most requests that are worked on at the same time; more are answered with 503 at once
    #[arg(long, env = "IN_FLIGHT_MAX", value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub in_flight_max: u32,

    /// The most connections that are open at the same time; more wait until one of them is closed
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
        value_delimiter = ','
    )]
    pub cors_origins: Vec<HeaderValue>,
}

/// The rate of a client where others than this machine can reach the API.
const PUBLIC_RATE: u32 = 1000;

/// How many transactions of one kind may be at the database at the same time where each is for one show.
const CITUS_LANES: u8 = 16;

impl Config {
    /// How many requests a second a client may send; none: as many as it likes.
    pub(crate) fn rate(&self) -> Option<NonZeroU32> {
        let default = if self.listen.ip().is_loopback() {
            0
        } else {
            PUBLIC_RATE
        };
        NonZeroU32::new(self.requests_per_second.unwrap_or(default))
    }

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
