//! `ticketing key`

use anyhow::ensure;
use clap::Subcommand;
use comfy_table::Table;
use shared::{
    api_key::{self, ApiKey, Change, NewApiKey, Scope},
    postgres::{self, DatabaseArgs},
};

use crate::table;

/// Make, list, change and revoke API keys
///
/// Each running api knows of a change within two seconds.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key, and print it: this once, for only its hash is stored
    ///
    /// Callers send it as `Authorization: Bearer <key>`.
    Create {
        /// What people know it by; no other valid key has it
        #[arg(long, value_parser = name)]
        name: String,

        /// What it may be used for; several with commas between them. None includes another
        #[arg(
            long = "scope",
            value_name = "SCOPE",
            value_delimiter = ',',
            required = true
        )]
        scopes: Vec<Scope>,

        /// How many requests a second it may send to each api; by default what the api allows
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        requests_per_second: Option<u32>,

        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// List all keys, also the revoked ones
    List {
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Change what a key may be used for, or how often
    Change {
        /// The key's name
        #[arg(long)]
        name: String,

        /// What it may be used for, in all; several with commas between them
        #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
        scopes: Option<Vec<Scope>>,

        /// How many requests a second it may send to each api; 0: what the api allows
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000), required_unless_present = "scopes")]
        requests_per_second: Option<u32>,

        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// End the validity of a key
    Revoke {
        /// The key's name
        #[arg(long)]
        name: String,

        #[command(flatten)]
        database: DatabaseArgs,
    },
}

fn name(text: &str) -> anyhow::Result<String> {
    ensure!(
        (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control),
        "a name has 1 to 100 characters, and no control character"
    );
    Ok(text.to_owned())
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Create {
            name,
            scopes,
            requests_per_second,
            database,
        } => {
            let pool = postgres::connect(&database).await?.pool;
            let new = NewApiKey {
                name: &name,
                scopes: &scopes,
                requests_per_second,
            };
            let token = api_key::create(&pool, &new).await?;
            // So that the key can be piped to where it is kept.
            eprintln!("Keep it now: it can't be shown again.");
            println!("{}", token.reveal());
        }
        Command::List { database } => {
            let pool = postgres::connect(&database).await?.pool;
            println!("{}", list(&api_key::list(&pool).await?));
        }
        Command::Change {
            name,
            scopes,
            requests_per_second,
            database,
        } => {
            let pool = postgres::connect(&database).await?.pool;
            let change = Change {
                scopes: scopes.as_deref(),
                requests_per_second: requests_per_second.map(|n| (n > 0).then_some(n)),
            };
            api_key::change(&pool, &name, change).await?;
            println!("Changed: each api and worker knows of it in two seconds.");
        }
        Command::Revoke { name, database } => {
            let pool = postgres::connect(&database).await?.pool;
            api_key::revoke(&pool, &name).await?;
            println!("Revoked: no api takes it any more in two seconds.");
        }
    }
    Ok(())
}

fn list(keys: &[ApiKey]) -> Table {
    let mut table = table::plain();
    table.set_header([
        "id",
        "name",
        "scopes",
        "requests/s",
        "created at",
        "revoked at",
    ]);
    for key in keys {
        let scopes: Vec<String> = key.scopes.iter().map(Scope::to_string).collect();
        table.add_row([
            key.id.to_string(),
            key.name.clone(),
            scopes.join(","),
            key.requests_per_second
                .map_or_else(|| "default".to_owned(), |n| n.to_string()),
            key.created_at.format("%F %T UTC").to_string(),
            key.revoked_at
                .map_or_else(String::new, |at| at.format("%F %T UTC").to_string()),
        ]);
    }
    table
}
