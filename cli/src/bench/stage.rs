//! What each measurement has to itself.

use anyhow::ensure;
use shared::local_postgres::LocalPostgres;

use crate::{
    program::{Program, Start},
    stress,
};

/// A fresh database and the api on it.
pub(super) struct Stage<'a> {
    server: &'a LocalPostgres,
    pub(super) database_url: String,
    pub(super) api: Program,
    api_url: String,
}

impl<'a> Stage<'a> {
    pub(super) async fn set(server: &'a LocalPostgres, batch_max: u16) -> anyhow::Result<Self> {
        let database_url = server.create_database(DATABASE).await?;
        let batch_max = batch_max.to_string();
        let args = ["--listen", "127.0.0.1:0", "--batch-max", &batch_max];
        let (api, address) = Program::api(start(&database_url, &args)).await?;
        Ok(Self {
            server,
            api,
            api_url: format!("http://{address}"),
            database_url,
        })
    }

    pub(super) fn start_worker(&self) -> anyhow::Result<Program> {
        Program::worker(start(&self.database_url, &[]))
    }

    /// Runs this load against the api. The seats must add up afterwards.
    pub(super) async fn put_load(&self, load: stress::Args) -> anyhow::Result<stress::Report> {
        let report = stress::stress(&stress::Args {
            urls: vec![self.api_url.clone()],
            ..load
        })
        .await?;
        ensure!(report.verified(), "the seats do not add up:\n{report}");
        Ok(report)
    }

    pub(super) async fn clear(self) -> anyhow::Result<()> {
        self.api.stop().await?;
        self.server.drop_database(DATABASE).await
    }
}

fn start<'a>(database_url: &'a str, args: &'a [&'a str]) -> Start<'a> {
    Start {
        database_url,
        args,
        log_file: None,
    }
}

/// The database of whatever is being measured.
pub(super) const DATABASE: &str = "bench";
