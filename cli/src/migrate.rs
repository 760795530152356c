//! `ticketing migrate`

use shared::{postgres, telemetry};

/// Bring a database's schema up to date
///
/// Safe to run again, and by several at once. Needs a role that can create tables and extensions; api and worker
/// need neither.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: postgres::DatabaseArgs,
    #[command(flatten)]
    log: telemetry::LogArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(&args.log, "ticketing-migrate")?;
    let database = postgres::connect(&args.database).await?;
    postgres::migrate(&database).await?;
    database.pool.close().await;
    println!("The schema is up to date.");
    Ok(())
}
