//! The real programs.

use std::process::Stdio;

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

/// A running program; killed when this is dropped.
pub(super) struct Program {
    name: &'static str,
    process: Child,
}

impl Program {
    /// Starts `worker` on this database.
    pub(super) fn worker(database_url: &str) -> anyhow::Result<Self> {
        let (worker, log) = Self::start("worker", database_url, &[])?;
        read_on(log);
        Ok(worker)
    }

    /// Starts `api` on this database and a free port, and returns its URL.
    pub(super) async fn api(database_url: &str, batch_max: u16) -> anyhow::Result<(Self, String)> {
        let batch_max = batch_max.to_string();
        let args = ["--listen", "127.0.0.1:0", "--batch-max", &batch_max];
        let (api, mut log) = Self::start("api", database_url, &args)?;
        let address = loop {
            let line = log.next_line().await?.context("api did not start")?;
            let line: serde_json::Value = serde_json::from_str(&line)?;
            if let Some(address) = line["address"].as_str() {
                break address.to_owned();
            }
        };
        read_on(log);
        Ok((api, format!("http://{address}")))
    }

    fn start(name: &'static str, database_url: &str, args: &[&str]) -> anyhow::Result<(Self, Log)> {
        let mut process = Command::new(super::beside_this_program(name)?)
            .args(args)
            .args(["--log-format", "json"])
            .env("DATABASE_URL", database_url)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let log = BufReader::new(process.stderr.take().context("no log")?).lines();
        Ok((Self { name, process }, log))
    }

    /// The most memory that it ever had, in MB; none where the system does not tell.
    pub(super) fn peak_memory_mb(&self) -> Option<f64> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id()?)).ok()?;
        let kilobytes: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?
            .trim()
            .strip_suffix(" kB")?
            .parse()
            .ok()?;
        Some(kilobytes / 1000.0)
    }

    /// Stops it as an orchestrator would.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(id) = self.process.id() {
            kill(Pid::from_raw(i32::try_from(id)?), Signal::SIGTERM)?;
        }
        let status = self.process.wait().await?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

type Log = Lines<BufReader<ChildStderr>>;

/// Reads a log to its end, for otherwise the process would at last wait for a reader.
fn read_on(mut log: Log) {
    tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
}
