//! The real `api` program.

use std::process::Stdio;

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// A running `api`; killed when this is dropped.
pub(super) struct ApiProcess {
    process: Child,
    pub(super) url: String,
}

impl ApiProcess {
    /// Starts it on this database and a free port.
    pub(super) async fn start(database_url: &str, batch_max: u16) -> anyhow::Result<Self> {
        let mut process = Command::new(super::beside_this_program("api")?)
            .args(["--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(["--batch-max", &batch_max.to_string()])
            .env("DATABASE_URL", database_url)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start api")?;
        let mut log = BufReader::new(process.stderr.take().context("no log")?).lines();
        let address = loop {
            let line = log.next_line().await?.context("api did not start")?;
            let line: serde_json::Value = serde_json::from_str(&line)?;
            if let Some(address) = line["address"].as_str() {
                break address.to_owned();
            }
        };
        // The log must be read on, or the process would wait for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Ok(Self {
            process,
            url: format!("http://{address}"),
        })
    }

    /// Stops it as an orchestrator would.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(id) = self.process.id() {
            kill(Pid::from_raw(i32::try_from(id)?), Signal::SIGTERM)?;
        }
        let status = self.process.wait().await?;
        ensure!(status.success(), "api ended with {status}");
        Ok(())
    }
}
