//! The command `ticketing key`: creates, lists, changes and revokes API keys.

use anyhow::ensure;
use clap::Subcommand;
use comfy_table::Table;
use shared::{
    api_key::{self, ApiKey, Change, NewApiKey, Scope},
    postgres::{self, DatabaseArgs},
};

use crate::table;

/// Create, list, change and revoke API keys
///
/// A change takes effect in all running apis and workers within two seconds.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a key, and print it
    ///
    /// The key cannot be shown again, because only its hash is stored. Clients send it as
    /// `Authorization: Bearer <key>`.
    Create {
        /// Name of the key, unique among the valid keys
        #[arg(long, value_parser = name)]
        name: String,

        /// Scopes of the key, separated by commas. No scope includes another one
        #[arg(
            long = "scope",
            value_name = "SCOPE",
            value_delimiter = ',',
            required = true
        )]
        scopes: Vec<Scope>,

        /// Requests per second that each api allows the key; by default the api's own limit
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        requests_per_second: Option<u32>,

        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// List all keys, including revoked ones
    List {
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Change the scopes or the rate limit of a key
    Change {
        /// Name of the key
        #[arg(long)]
        name: String,

        /// Scopes that replace the present ones, separated by commas
        #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',')]
        scopes: Option<Vec<Scope>>,

        /// Requests per second that each api allows the key; 0 restores the api's own limit
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000_000), required_unless_present = "scopes")]
        requests_per_second: Option<u32>,

        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Revoke a key
    Revoke {
        /// Name of the key
        #[arg(long)]
        name: String,

        #[command(flatten)]
        database: DatabaseArgs,
    },
}

fn name(text: &str) -> anyhow::Result<String> {
    ensure!(
        (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control),
        "a name must have 1 to 100 characters and no control characters"
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
            // On stderr, so that stdout has only the key and can be piped to a secret store.
            eprintln!("Store this key now: it cannot be shown again.");
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
            println!("Changed. All apis and workers apply the change within two seconds.");
        }
        Command::Revoke { name, database } => {
            let pool = postgres::connect(&database).await?.pool;
            api_key::revoke(&pool, &name).await?;
            println!("Revoked. All apis and workers reject the key within two seconds.");
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
