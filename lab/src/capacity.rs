//! The command `ticketing-lab capacity`: measures costs and calculates what a sale needs.

mod cost;
mod plan;

use std::path::{Path, PathBuf};

use anyhow::Context;
use indicatif::ProgressBar;
use serde_json::json;
use shared::{
    local_postgres::{LocalPostgres, Mode as Durability},
    shutdown,
};
use tokio::task::spawn_blocking;

use self::{
    cost::Costs,
    plan::{Plan, Sale},
};
use crate::{cost::Cost, table, work_dir::WorkDir};

/// Measure the cost of a booking, and calculate the resources that a sale needs
///
/// Starts a private PostgreSQL server with durable settings, and an `api` and a `worker` process
/// from the directory of this program (build them all with --release first). Measures the processor
/// time and the write-ahead log that it takes to reserve, confirm and expire a booking, in a sale
/// over the given number of shows. From these costs it calculates the processors and the disk
/// bandwidth that the sale needs, and which of them runs out first. Requires Linux.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sale: Sale,

    /// Number of runs, whose medians are used
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    runs: u8,

    /// Duration of each measurement, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,

    /// Parent of the directory for the database, which is removed at the end
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    data_dir: PathBuf,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let dir = WorkDir::make(&args.data_dir, "capacity")?;
    let stop = shutdown::on_signal()?;
    let measured = stop.run_until_cancelled(measure(&args, &dir)).await;
    dir.remove()?;
    let costs = measured.context("interrupted")??;
    let plan = Plan::new(&args.sale, &costs);
    if args.json {
        let result = json!({"sale": args.sale, "costs": costs, "plan": plan});
        println!("{result:#}");
    } else {
        print(&args.sale, &costs, &plan);
    }
    Ok(())
}

async fn measure(args: &Args, dir: &Path) -> anyhow::Result<Costs> {
    let data_dir = dir.join("postgres");
    let server =
        spawn_blocking(move || LocalPostgres::start(&data_dir, Durability::Durable)).await??;
    let bar = ProgressBar::new(u64::from(args.runs) * cost::STEPS);
    let mut runs = Vec::new();
    for _ in 0..args.runs {
        runs.push(cost::measure(&server, args.sale.shows, args.seconds, &bar).await?);
    }
    bar.finish_and_clear();
    Ok(cost::medians(&runs))
}

fn print(sale: &Sale, costs: &Costs, plan: &Plan) {
    let mut of_one = table::plain();
    of_one.set_header([
        "cost per booking",
        "api µs",
        "worker µs",
        "PostgreSQL µs",
        "log bytes",
    ]);
    for (name, cost) in [
        ("reserve", costs.reserve),
        ("confirm", costs.confirm),
        ("expire", costs.expire),
    ] {
        let Cost {
            api_micros,
            worker_micros,
            database_micros,
            log_bytes,
            ..
        } = cost;
        let figures = [api_micros, worker_micros, database_micros, log_bytes];
        let mut row = vec![name.to_owned()];
        row.extend(figures.map(|figure| format!("{figure:.1}")));
        of_one.add_row(row);
    }
    table::align_figures(&mut of_one);

    let mut of_all = table::plain();
    of_all.set_header(["resource", "needed", "of available"]);
    for need in &plan.needs {
        let share = need.share.map(|share| format!("{:.0} %", share * 100.0));
        of_all.add_row([
            need.of.to_owned(),
            format!("{:.1} {}", need.amount, need.unit),
            share.unwrap_or_default(),
        ]);
    }
    table::align_figures(&mut of_all);
    println!(
        "{of_one}\n\n{sale}:\n\n{of_all}\n\n{} runs out first, at {:.0} bookings/s.",
        plan.first, plan.most_bookings_per_second
    );
}
