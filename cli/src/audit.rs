//! The command `ticketing audit`: checks the invariants of a database.

use std::time::Duration;

use anyhow::bail;
use shared::{
    audit::{self, Audit},
    postgres::{self, DatabaseArgs},
};

use crate::table;

/// Check every invariant of a database
///
/// Examples: no seat is lost or sold twice, no hold is forgotten, every job has its bookings. All
/// checks read the same snapshot and take no locks, so the audit may run during a sale. Exits with
/// 1 if an invariant is broken.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    database: DatabaseArgs,

    /// How long a hold may be overdue, in seconds
    ///
    /// Its job, and after it the janitor, need a moment to fail it.
    #[arg(long, value_name = "SECONDS", default_value_t = default_hold_limit(), value_parser = clap::value_parser!(u32).range(0..=86_400))]
    overdue_limit_seconds: u32,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn default_hold_limit() -> u32 {
    u32::try_from(audit::DEFAULT_HOLD_LIMIT.as_secs()).unwrap_or(u32::MAX)
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let database = postgres::connect(&args.database).await?;
    let limit = Duration::from_secs(args.overdue_limit_seconds.into());
    let audit = audit::audit(&database, limit).await?;
    database.pool.close().await;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&audit)?);
    } else {
        print(&audit);
    }
    if !audit.passes() {
        bail!("an invariant is broken");
    }
    Ok(())
}

fn print(audit: &Audit) {
    let mut table = table::plain();
    table.set_header(["invariant", "broken"]);
    for found in &audit.invariants {
        table.add_row([found.name, &found.broken.to_string()]);
    }
    table::align_figures(&mut table);
    println!(
        "{table}\n\n{} shows, {} bookings",
        audit.shows, audit.bookings
    );
    for found in audit.invariants.iter().filter(|found| found.broken > 0) {
        println!("\n{}:", found.name);
        for example in &found.examples {
            println!("  {example}");
        }
    }
}
