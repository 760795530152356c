//! What each measurement has to itself.

use std::time::Duration;

use anyhow::ensure;
use clap::ValueEnum;
use shared::{
    api_key::{self, NewApiKey, Scope},
    booking::{BookingStatus, query},
    local_postgres::LocalPostgres,
};
use sqlx::PgPool;
use tokio::time::sleep;

use crate::{
    program::{Program, Start},
    stress,
};

/// A fresh database and the api on it.
pub(crate) struct Stage<'a> {
    server: &'a LocalPostgres,
    pub(crate) database_url: String,
    pub(crate) api: Program,
    api_url: String,
    pub(crate) admin_url: String,
    api_key: Option<String>,
}

/// Whether the api asks for keys and counts requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guarded {
    Yes,
    No,
}

impl<'a> Stage<'a> {
    pub(crate) async fn set(server: &'a LocalPostgres, batch_max: u16) -> anyhow::Result<Self> {
        Self::set_with(server, batch_max, Guarded::No).await
    }

    pub(crate) async fn set_with(
        server: &'a LocalPostgres,
        batch_max: u16,
        guarded: Guarded,
    ) -> anyhow::Result<Self> {
        let database_url = server.create_database(DATABASE).await?;
        let batch_max = batch_max.to_string();
        let mut args = vec!["--listen", "127.0.0.1:0", "--batch-max", &batch_max];
        let mut api_key = None;
        if guarded == Guarded::Yes {
            args.extend(["--require-keys", "--requests-per-second", "1000000"]);
            api_key = Some(make_key(server).await?);
        }
        let (api, addresses) = Program::api(start(&database_url, &args)).await?;
        Ok(Self {
            server,
            api,
            api_url: format!("http://{}", addresses.api),
            admin_url: format!("http://{}", addresses.admin),
            api_key,
            database_url,
        })
    }

    pub(crate) fn start_worker(&self) -> anyhow::Result<Program> {
        Program::worker(start(&self.database_url, &[]))
    }

    /// This load, against the api.
    pub(crate) fn load(&self, load: &stress::Args) -> stress::Args {
        stress::Args {
            urls: vec![self.api_url.clone()],
            api_key: self.api_key.clone(),
            ..load.clone()
        }
    }

    /// Runs this load against the api. The seats must add up afterwards.
    pub(crate) async fn put_load(&self, load: &stress::Args) -> anyhow::Result<stress::Report> {
        let report = stress::stress(&self.load(load)).await?;
        ensure!(report.verified(), "the seats do not add up:\n{report}");
        Ok(report)
    }

    pub(crate) async fn clear(self) -> anyhow::Result<()> {
        self.api.stop().await?;
        self.server.drop_database(DATABASE).await
    }
}

async fn make_key(server: &LocalPostgres) -> anyhow::Result<String> {
    let pool = server.connect(DATABASE).await?.pool;
    let new = NewApiKey {
        name: "bench",
        scopes: Scope::value_variants(),
        requests_per_second: None,
    };
    let token = api_key::create(&pool, &new).await?;
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

/// The database of whatever is being measured.
pub(crate) const DATABASE: &str = "bench";

/// Waits until no hold is left whose deadline is still to come.
pub(crate) async fn holds_have_run_out(pool: &PgPool) -> anyhow::Result<()> {
    let held = query::Filter {
        status: Some(BookingStatus::Pending),
        ..query::Filter::default()
    };
    while !query::list(pool, &held, None, 1).await?.is_empty() {
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}
