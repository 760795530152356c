//! The command `ticketing up`: runs PostgreSQL, api and worker together.

use std::{
    env,
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use shared::{
    local_postgres::{LocalPostgres, Mode},
    postgres::{self, DatabaseArgs},
    shutdown, telemetry,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Run the whole system: PostgreSQL, api and worker (the default)
///
/// Uses the PostgreSQL server at `DATABASE_URL`, or starts a private server, which keeps its data
/// between runs. Then it migrates the schema, and runs api and worker in this process. Ctrl-C stops
/// everything, the database last.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// URL of the PostgreSQL database, such as `postgres://user:password@host/ticketing`
    ///
    /// Without it, `up` starts a private server.
    #[arg(long, env, value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,

    /// File that contains the database password, so that the URL need not contain it
    #[arg(long, env, value_name = "FILE", requires = "database_url")]
    database_password_file: Option<PathBuf>,

    /// Data directory of the private PostgreSQL server [default:
    /// ~/.local/share/ticketing/postgres, or /var/lib/ticketing/postgres for root]
    #[arg(long, env = "TICKETING_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Maximum number of database connections of the api, and of the worker
    #[arg(long, env, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=1000))]
    database_connections: u32,

    #[command(flatten)]
    api: api::config::Config,
    #[command(flatten)]
    worker: worker::config::Config,
    #[command(flatten)]
    log: telemetry::LogArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(&args.log, "ticketing")?;
    let stop = shutdown::on_signal()?;

    let (database_url, server) = match args.database_url {
        Some(url) => (url, None),
        None => {
            let data_dir = args.data_dir.map_or_else(default_data_dir, Ok)?;
            let server = start_postgres(data_dir).await?;
            (server.default_url(), Some(server))
        }
    };
    let database = DatabaseArgs {
        database_url,
        database_password_file: args.database_password_file,
        database_connections: args.database_connections,
    };
    let result = serve(&database, server.as_ref(), &args.api, &args.worker, stop).await;

    // The database stops last, when nothing uses it any more.
    tokio::task::spawn_blocking(|| drop(server)).await?;
    result
}

async fn serve(
    database: &DatabaseArgs,
    server: Option<&LocalPostgres>,
    api: &api::config::Config,
    worker: &worker::config::Config,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let api_database = postgres::connect(database).await?;
    shared::migrate::run(&api_database).await?;
    let worker_database = postgres::connect(database).await?;
    let listeners = api::bind(api)?;
    say(banner(&listeners, server)?);

    // When one of the three ends, for whatever reason, the guard that it drops stops the others.
    let ends = || stop.clone().drop_guard();
    let (api_ends, worker_ends, server_ends) = (ends(), ends(), ends());
    let results = tokio::join!(
        async {
            let _ends = api_ends;
            api::serve(listeners, api_database, api, stop.clone()).await
        },
        async {
            let _ends = worker_ends;
            worker::run(worker_database, worker, &api.callers, stop.clone()).await
        },
        async {
            let _ends = server_ends;
            stop.run_until_cancelled(until_it_ends(server)).await;
        },
    );
    // If the private server exited, this error explains why the others failed.
    check(server)?;
    results.0.and(results.1)
}

/// Waits until the private server exits unexpectedly; forever without a private server.
async fn until_it_ends(server: Option<&LocalPostgres>) {
    while check(server).is_ok() {
        sleep(Duration::from_secs(1)).await;
    }
}

/// Fails if the private server has exited; the error quotes the end of the server's log.
fn check(server: Option<&LocalPostgres>) -> anyhow::Result<()> {
    match server {
        Some(server) if !server.is_running() => bail!(
            "PostgreSQL has ended. Its log, {}, says:\n{}",
            server.log().display(),
            server.last_words(),
        ),
        _ => Ok(()),
    }
}

/// Prints to standard output from a separate thread.
///
/// If nothing reads standard output, this neither blocks nor ends the program.
fn say(text: String) {
    let _ = thread::Builder::new().spawn(move || writeln!(io::stdout(), "{text}"));
}

/// Returns the text that says what runs where and shows a first request.
fn banner(listeners: &api::Listeners, server: Option<&LocalPostgres>) -> anyhow::Result<String> {
    let api = listeners.api.local_addr()?;
    let admin = listeners.admin.local_addr()?;
    let database = match server {
        Some(server) => format!(
            "{}\n              data in {}",
            server.default_url(),
            server.data_dir().display()
        ),
        None => "at DATABASE_URL".to_owned(),
    };
    Ok(format!(
        r#"
  PostgreSQL  {database}
  api         http://{api}
  dashboard   http://{admin}
  worker      in this process

Try it:

  curl -i http://{api}/shows -H 'Content-Type: application/json' \
    -d '{{"name":"Morning Show","startTime":"2025-12-10 10:00:00","seats":40}}'

Ctrl-C stops everything; the data stays.
"#
    ))
}

async fn start_postgres(data_dir: PathBuf) -> anyhow::Result<LocalPostgres> {
    if !data_dir.exists() {
        say(format!(
            "Creating a PostgreSQL data directory at {} …",
            data_dir.display()
        ));
    }
    tokio::task::spawn_blocking(move || LocalPostgres::start(&data_dir, Mode::Durable)).await?
}

/// Returns the default data directory: in the user's data home, or for root in `/var/lib`.
///
/// Root's server runs as another user, which cannot enter root's home.
fn default_data_dir() -> anyhow::Result<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Ok(Path::new("/var/lib/ticketing/postgres").to_owned());
    }
    let data_home = match env::var_os("XDG_DATA_HOME") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(&env::var_os("HOME").context("HOME is not set; use --data-dir")?)
            .join(".local/share"),
    };
    Ok(data_home.join("ticketing/postgres"))
}
