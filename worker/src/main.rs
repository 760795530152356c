//! The `worker` binary: runs background jobs until it is stopped.

use std::process::ExitCode;

use clap::Parser;
use shared::{postgres, shutdown, telemetry};
use worker::config::Args;

#[tokio::main]
async fn main() -> ExitCode {
    telemetry::conclude(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(&args.log, "ticketing-worker")?;
    let stop = shutdown::on_signal()?;
    let connecting = postgres::connect(&args.database);
    let Some(database) = stop.run_until_cancelled(connecting).await else {
        return Ok(());
    };
    worker::run(database?, &args.config, &args.callers, stop).await
}
