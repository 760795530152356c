//! The settings of the API server.

use std::net::SocketAddr;

use clap::Parser;
use shared::{postgres::DatabaseArgs, telemetry::LogArgs};

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

    /// The most concurrent requests that share a transaction; with 1 each has its own
    #[arg(long, env = "BATCH_MAX", value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub batch_max: u16,

    /// How many such transactions of one kind may be at the database at the same time
    ///
    /// All requests for a show go through the same lane. More than one pays only where cores are idle.
    #[arg(long, env = "BATCH_LANES", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub batch_lanes: u8,

    /// The most requests that wait for a lane; more are answered with 503 at once
    #[arg(long, env = "QUEUE_MAX", value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub queue_max: u32,
}

impl Config {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            batch_max: self.batch_max.into(),
            lanes: self.batch_lanes.into(),
            queue_max: usize::try_from(self.queue_max).unwrap_or(usize::MAX),
        }
    }
}
