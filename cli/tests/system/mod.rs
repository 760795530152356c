//! The whole system, as `ticketing up` runs it. Not every test binary uses all of it.
#![allow(dead_code)]

use std::{path::Path, process::Stdio};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use shared::testing::DataDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

pub(crate) fn ticketing() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ticketing"));
    command
        .env_remove("DATABASE_URL")
        .env("RUST_BACKTRACE", "0")
        .kill_on_drop(true);
    command
}

/// Whether the server whose data is here runs.
pub(crate) fn server_runs(data: &DataDir) -> bool {
    data.0.join("postmaster.pid").exists()
}

/// A running `ticketing up`; killed when this is dropped.
pub(crate) struct Up {
    pub(crate) process: Child,
    pub(crate) api: String,
    /// The dashboard.
    pub(crate) admin: String,
    /// The database.
    pub(crate) database: String,
}

impl Up {
    pub(crate) async fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[]).await
    }

    pub(crate) async fn start_with(data_dir: &Path, args: &[&str]) -> Self {
        Self::start_in(data_dir, args, &[]).await
    }

    /// With these environment variables.
    pub(crate) async fn start_in(
        data_dir: &Path,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut process = ticketing()
            .envs(environment.iter().copied())
            .args(["up", "--listen", "127.0.0.1:0"])
            .args([
                "--admin-listen",
                "127.0.0.1:0",
                "--worker-listen",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(data_dir)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut find = async |name: &str| loop {
            let line = lines.next_line().await.unwrap().expect("what runs where");
            if let Some(place) = line.trim().strip_prefix(name) {
                return place.trim().to_owned();
            }
        };
        Self {
            database: find("PostgreSQL ").await,
            api: find("api ").await,
            admin: find("dashboard ").await,
            process,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id().unwrap()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    pub(crate) async fn shows(&self) -> Value {
        let response = reqwest::get(format!("{}/shows", self.api)).await.unwrap();
        response.json().await.unwrap()
    }
}

pub(crate) async fn stress(api: &str, args: &[&str]) -> (Option<i32>, Value) {
    let output = ticketing()
        .args(["stress", "--json", "--url", api])
        .args(args)
        .output()
        .await
        .unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}
