//! Starts and controls the real programs as separate processes.

use std::{
    env,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, bail, ensure};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

use crate::processor_time::processor_seconds;

/// A running program. It is killed when this value is dropped.
pub(crate) struct Program {
    name: &'static str,
    process: Child,
}

/// Addresses and memory bound of an api, as logged at its start.
#[derive(Debug, Deserialize)]
pub(crate) struct Addresses {
    #[serde(rename = "address")]
    pub(crate) api: String,
    pub(crate) admin: String,
    pub(crate) memory_bound_mb: f64,
}

/// Settings with which a program is started.
#[derive(Clone, Copy)]
pub(crate) struct Start<'a> {
    pub(crate) database_url: &'a str,
    pub(crate) args: &'a [&'a str],
    /// File to which the log of the program is appended.
    pub(crate) log_file: Option<&'a Path>,
}

impl Program {
    /// Starts a worker, and waits until it works.
    pub(crate) async fn worker(start: Start<'_>) -> anyhow::Result<Self> {
        let (worker, mut log) = Self::start("worker", start)?;
        let started = |fields: &Value| (fields["message"] == "worker started").then_some(());
        log.find("worker", started).await?;
        log.read_on();
        Ok(worker)
    }

    /// Starts an api, and waits until it listens.
    pub(crate) async fn api(start: Start<'_>) -> anyhow::Result<(Self, Addresses)> {
        let (api, mut log) = Self::start("api", start)?;
        let addresses = |fields: &Value| Addresses::deserialize(fields).ok();
        let addresses = log.find("api", addresses).await?;
        log.read_on();
        Ok((api, addresses))
    }

    fn start(
        name: &'static str,
        Start {
            database_url,
            args,
            log_file,
        }: Start<'_>,
    ) -> anyhow::Result<(Self, Log)> {
        let mut process = Command::new(beside_this_program(name)?)
            .args(args)
            .args(["--log-format", "json"])
            .env("DATABASE_URL", database_url)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stderr = process.stderr.take().context("stderr is not piped")?;
        let file = log_file
            .map(|path| OpenOptions::new().create(true).append(true).open(path))
            .transpose()
            .with_context(|| format!("cannot open the log file of {name}"))?;
        let lines = BufReader::new(stderr).lines();
        Ok((Self { name, process }, Log { lines, file }))
    }

    /// Returns the processor time used so far, in seconds; none if the system does not report it.
    pub(crate) fn processor_seconds(&self) -> Option<f64> {
        processor_seconds(i32::try_from(self.process.id()?).ok()?)
    }

    /// Returns the peak resident memory, in MB; none if the system does not report it.
    pub(crate) fn peak_memory_mb(&self) -> Option<f64> {
        self.status_mb("VmHWM:")
    }

    /// Returns the current resident memory, in MB; none if the system does not report it.
    pub(crate) fn memory_mb(&self) -> Option<f64> {
        self.status_mb("VmRSS:")
    }

    fn status_mb(&self, field: &str) -> Option<f64> {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id()?)).ok()?;
        let kilobytes: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix(field))?
            .trim()
            .strip_suffix(" kB")?
            .parse()
            .ok()?;
        Some(kilobytes / 1000.0)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.process.id().context("the program has ended")?;
        signal::kill(Pid::from_raw(i32::try_from(id)?), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Kills the program without a warning (SIGKILL).
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.process.kill().await?)
    }

    /// Stops the program as an orchestrator does, with SIGTERM, and checks that it exits with 0.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.process.wait().await?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

/// Log of a program, read from its standard error.
struct Log {
    lines: Lines<BufReader<ChildStderr>>,
    file: Option<File>,
}

impl Log {
    async fn next(&mut self) -> anyhow::Result<Option<String>> {
        let line = self.lines.next_line().await?;
        if let (Some(line), Some(file)) = (&line, &mut self.file) {
            writeln!(file, "{line}").context("cannot write to the log file")?;
        }
        Ok(line)
    }

    /// Reads up to the first line in which `look` finds what it looks for.
    async fn find<T>(
        &mut self,
        name: &str,
        look: impl Fn(&Value) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut last = String::new();
        while let Some(line) = self.next().await? {
            if let Some(found) = look(&serde_json::from_str(&line).unwrap_or_default()) {
                return Ok(found);
            }
            last = line;
        }
        bail!("{name} does not start: {last}");
    }

    /// Reads the rest in the background. Otherwise the program would block once the pipe is full.
    fn read_on(mut self) {
        tokio::spawn(async move { while let Ok(Some(_)) = self.next().await {} });
    }
}

/// Returns the path of another program, which is in the directory of this one.
fn beside_this_program(name: &str) -> anyhow::Result<PathBuf> {
    let path = env::current_exe()?.with_file_name(name);
    ensure!(
        path.is_file(),
        "{} does not exist: build all programs, for example with `cargo build --release`",
        path.display()
    );
    Ok(path)
}
