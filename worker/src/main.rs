//! The `worker` binary: runs background jobs until it is told to stop.

use clap::Parser;
use shared::{postgres, shutdown, telemetry};
use worker::config::Args;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    telemetry::init(&args.log)?;
    let stop = shutdown::on_signal()?;
    let pool = postgres::connect(&args.database).await?;
    worker::run(pool, &args.config, stop).await
}
