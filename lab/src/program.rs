//! The real programs, as processes of their own.

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
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

use crate::processor_time::processor_seconds;

/// A running program; killed when this is dropped.
pub(crate) struct Program {
    name: &'static str,
    process: Child,
}

/// Where an api listens, and within what memory it stays, as its log says.
#[derive(Debug, Deserialize)]
pub(crate) struct Addresses {
    #[serde(rename = "address")]
    pub(crate) api: String,
    pub(crate) admin: String,
    pub(crate) memory_bound_mb: f64,
}

/// How to start a program.
#[derive(Clone, Copy)]
pub(crate) struct Start<'a> {
    pub(crate) database_url: &'a str,
    pub(crate) args: &'a [&'a str],
    /// What its log is appended to.
    pub(crate) log_file: Option<&'a Path>,
}

impl Program {
    pub(crate) fn worker(start: Start<'_>) -> anyhow::Result<Self> {
        let (worker, log) = Self::start("worker", start)?;
        log.read_on();
        Ok(worker)
    }

    /// Starts `api`, and waits until it listens.
    pub(crate) async fn api(start: Start<'_>) -> anyhow::Result<(Self, Addresses)> {
        let (api, mut log) = Self::start("api", start)?;
        let mut last = String::new();
        while let Some(line) = log.next().await? {
            let fields: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if let Ok(addresses) = serde_json::from_value(fields) {
                log.read_on();
                return Ok((api, addresses));
            }
            last = line;
        }
        bail!("api does not start: {last}");
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
        let stderr = process.stderr.take().context("no log")?;
        let file = log_file
            .map(|path| OpenOptions::new().create(true).append(true).open(path))
            .transpose()
            .with_context(|| format!("cannot write the log of {name}"))?;
        let lines = BufReader::new(stderr).lines();
        Ok((Self { name, process }, Log { lines, file }))
    }

    /// How much processor time it has had, in seconds; none where the system does not tell.
    pub(crate) fn processor_seconds(&self) -> Option<f64> {
        processor_seconds(i32::try_from(self.process.id()?).ok()?)
    }

    /// The most memory that it ever had, in MB; none where the system does not tell.
    pub(crate) fn peak_memory_mb(&self) -> Option<f64> {
        self.status_mb("VmHWM:")
    }

    /// The memory that it has, in MB; none where the system does not tell.
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
        let id = self.process.id().context("it has ended")?;
        signal::kill(Pid::from_raw(i32::try_from(id)?), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Ends it without a warning.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.process.kill().await?)
    }

    /// Stops it as an orchestrator would.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.process.wait().await?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

/// What a program says.
struct Log {
    lines: Lines<BufReader<ChildStderr>>,
    file: Option<File>,
}

impl Log {
    async fn next(&mut self) -> anyhow::Result<Option<String>> {
        let line = self.lines.next_line().await?;
        if let (Some(line), Some(file)) = (&line, &mut self.file) {
            writeln!(file, "{line}").context("cannot write a log")?;
        }
        Ok(line)
    }

    /// Reads to the end, for otherwise the program would at last wait for a reader.
    fn read_on(mut self) {
        tokio::spawn(async move { while let Ok(Some(_)) = self.next().await {} });
    }
}

/// The directory of this program, where the others are too.
fn beside_this_program(name: &str) -> anyhow::Result<PathBuf> {
    let path = env::current_exe()?.with_file_name(name);
    ensure!(
        path.is_file(),
        "{} is not there: build all programs, such as with `cargo build --release`",
        path.display()
    );
    Ok(path)
}
