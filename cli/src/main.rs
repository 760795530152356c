//! The command `ticketing`: runs the system, and administers it.

mod audit;
mod configuration;
mod health;
mod import;
mod key;
mod migrate;
mod table;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shared::telemetry;

/// The ticket-booking backend that does not oversell.
#[derive(Debug, Parser)]
#[command(name = "ticketing", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(Box<up::Args>),
    Migrate(migrate::Args),
    Audit(audit::Args),
    Health(health::Args),
    Import(import::Args),
    Key(key::Args),
    /// Print all settings, in the format of docs/configuration.md
    Configuration,
    /// Print the OpenAPI document of the API, which every api serves at `/openapi.json`
    Openapi,
}

/// mimalloc, as in the program `api`, which `up` runs in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    telemetry::conclude(run(parse().command).await)
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => up::run(*args).await,
        Command::Migrate(args) => migrate::run(args).await,
        Command::Audit(args) => audit::run(args).await,
        Command::Health(args) => health::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Key(args) => key::run(args).await,
        Command::Configuration => {
            configuration::run();
            Ok(())
        }
        Command::Openapi => {
            println!("{:#}", api::openapi::document());
            Ok(())
        }
    }
}

/// Parses the command line. The default command is `up`.
fn parse() -> Cli {
    let mut args: Vec<_> = std::env::args_os().collect();
    if args.len() < 2 {
        args.push("up".into());
    }
    Cli::parse_from(args)
}
