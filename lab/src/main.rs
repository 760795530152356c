//! The command `ticketing-lab`: puts load on the system, breaks it, and measures it.

mod bench;
mod capacity;
mod chaos;
mod cost;
mod environment;
mod expiry_lag;
mod median;
mod peer;
mod processor_time;
mod program;
mod siege;
mod soak;
mod stress;
mod table;
mod work_dir;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shared::telemetry;

/// Load tests, fault injection and measurements for ticketing, with its real programs.
#[derive(Debug, Parser)]
#[command(name = "ticketing-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Stress(stress::Args),
    Bench(bench::Args),
    Capacity(capacity::Args),
    Chaos(chaos::Args),
    Soak(soak::Args),
    Siege(siege::Args),
    #[command(hide = true)]
    Peer(peer::Args),
}

/// mimalloc, because the load shares a machine with the programs that it measures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    telemetry::conclude(run(Cli::parse().command).await)
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Stress(args) => stress::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Capacity(args) => capacity::run(args).await,
        Command::Chaos(args) => chaos::run(args).await,
        Command::Soak(args) => soak::run(args).await,
        Command::Siege(args) => siege::run(args).await,
        Command::Peer(args) => peer::run(args).await,
    }
}
