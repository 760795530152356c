//! The `api` binary, which serves HTTP until a signal stops it.

use std::process::ExitCode;

use api::config::Args;
use clap::Parser;
use shared::{postgres, shutdown, telemetry};

/// mimalloc: each request allocates dozens of small objects, often freed on another thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    telemetry::conclude(run(Args::parse()).await)
}

async fn run(args: Args) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(&args.log, "ticketing-api")?;
    let stop = shutdown::on_signal()?;
    let connecting = postgres::connect(&args.database);
    let Some(database) = stop.run_until_cancelled(connecting).await else {
        return Ok(());
    };
    let database = database?;
    let listeners = api::bind(&args.config)?;
    api::serve(listeners, database, &args.config, stop).await
}
