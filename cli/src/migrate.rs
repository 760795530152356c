//! The command `ticketing migrate`: migrates a database.

use shared::{postgres, telemetry};

/// Migrate the schema of a database to this version
///
/// Safe to repeat, and to run several times at once. Requires a database role that may create
/// tables and extensions; the roles of api and worker need neither right.
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
    shared::migrate::run(&database).await?;
    database.pool.close().await;
    println!("The schema is up to date.");
    Ok(())
}
