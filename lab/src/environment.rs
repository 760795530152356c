//! Environment of a measurement: a fresh database, and an api that uses it.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use anyhow::ensure;
use clap::ValueEnum;
use shared::{
    api_key::{self, NewApiKey, Scope},
    booking::{BookingStatus, query},
    local_postgres::LocalPostgres,
    postgres::Database,
};
use tokio::time::sleep;

use crate::{
    program::{Program, Start},
    stress,
};

/// A fresh database, and an api that uses it.
pub(crate) struct Environment<'a> {
    pub(crate) server: &'a LocalPostgres,
    /// Name of the database.
    database: String,
    pub(crate) database_url: String,
    pub(crate) api: Program,
    pub(crate) api_url: String,
    /// Memory that the api never exceeds, as it logged at its start, in MB.
    pub(crate) memory_bound_mb: f64,
    pub(crate) admin_url: String,
    pub(crate) api_key: Option<String>,
}

impl<'a> Environment<'a> {
    pub(crate) async fn start(server: &'a LocalPostgres, batch_max: u16) -> anyhow::Result<Self> {
        let batch_max = batch_max.to_string();
        Self::start_with(server, &["--batch-max", &batch_max], None).await
    }

    /// Creates the database, and starts an api with additional arguments.
    ///
    /// With `requests_per_second`, the api requires keys, and a key with this rate is created.
    pub(crate) async fn start_with(
        server: &'a LocalPostgres,
        args: &[&str],
        requests_per_second: Option<u32>,
    ) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let database = format!("lab_{}", COUNT.fetch_add(1, Relaxed));
        let database_url = server.create_database(&database).await?;
        let mut all_args = vec!["--listen", "127.0.0.1:0"];
        all_args.extend(args);
        let mut api_key = None;
        if let Some(rate) = requests_per_second {
            all_args.push("--require-keys");
            let database = server.connect(&database).await?;
            api_key = Some(make_key(&database, "buyers", Some(rate)).await?);
        }
        let (api, addresses) = Program::api(start(&database_url, &all_args)).await?;
        Ok(Self {
            server,
            database,
            api,
            api_url: format!("http://{}", addresses.api),
            memory_bound_mb: addresses.memory_bound_mb,
            admin_url: format!("http://{}", addresses.admin),
            api_key,
            database_url,
        })
    }

    /// Connects to the database.
    pub(crate) async fn connect(&self) -> anyhow::Result<Database> {
        self.server.connect(&self.database).await
    }

    pub(crate) async fn start_worker(&self) -> anyhow::Result<Program> {
        Program::worker(start(&self.database_url, &[])).await
    }

    /// Returns this load, directed at the api.
    pub(crate) fn load(&self, load: &stress::Args) -> stress::Args {
        stress::Args {
            urls: vec![self.api_url.clone()],
            api_key: self.api_key.clone(),
            ..load.clone()
        }
    }

    /// Runs this load against the api, and checks that the seats add up afterwards.
    pub(crate) async fn put_load(&self, load: &stress::Args) -> anyhow::Result<stress::Report> {
        let report = stress::stress(&self.load(load)).await?;
        ensure!(report.verified(), "the seats do not add up:\n{report}");
        Ok(report)
    }

    pub(crate) async fn clear(self) -> anyhow::Result<()> {
        self.api.stop().await?;
        self.server.drop_database(&self.database).await
    }
}

/// Creates an API key with all scopes, and closes the connection to the database.
///
/// Without a rate of its own, the key has the server's default.
pub(crate) async fn make_key(
    database: &Database,
    name: &str,
    requests_per_second: Option<u32>,
) -> anyhow::Result<String> {
    let pool = &database.pool;
    let new = NewApiKey {
        name,
        scopes: Scope::value_variants(),
        requests_per_second,
    };
    let token = api_key::create(pool, &new).await?;
    pool.close().await;
    Ok(token.reveal())
}

fn start<'a>(database_url: &'a str, args: &'a [&'a str]) -> Start<'a> {
    Start {
        database_url,
        args,
        log_file: None,
    }
}

/// Waits until the deadlines of all holds have passed.
pub(crate) async fn holds_have_run_out(database: &Database) -> anyhow::Result<()> {
    let held = query::Filter {
        status: Some(BookingStatus::Pending),
        ..query::Filter::default()
    };
    while !query::list(database, &held, None, 1).await?.is_empty() {
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}
