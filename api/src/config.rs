//! The settings of the API server.

use std::net::SocketAddr;

use clap::Parser;
use shared::{postgres::DatabaseArgs, telemetry::LogArgs};

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
}
