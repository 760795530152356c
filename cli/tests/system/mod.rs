//! Helpers that run the system in tests: `ticketing up`, `api` and `worker`, and their load.
//!
//! Not every test binary uses all of them.
#![allow(dead_code)]

pub(crate) mod import;
pub(crate) mod pgbouncer;

use std::{
    cell::Cell,
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use shared::audit;
use sqlx::PgPool;
use testing::{DataDir, count, direct, eventually};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

pub(crate) fn ticketing() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ticketing"));
    command
        .env_remove("DATABASE_URL")
        // Errors for operators must not show a backtrace even so.
        .env("RUST_BACKTRACE", "1")
        .kill_on_drop(true);
    command
}

/// Returns whether the server of this data directory is running.
pub(crate) fn server_runs(data: &DataDir) -> bool {
    data.0.join("postmaster.pid").exists()
}

/// Returns the command `ticketing up` with this data directory and free ports.
pub(crate) fn up(data_dir: &Path) -> Command {
    let mut command = ticketing();
    command.arg("up");
    for listen in ["--listen", "--admin-listen", "--worker-listen"] {
        command.args([listen, "127.0.0.1:0"]);
    }
    command.arg("--data-dir").arg(data_dir);
    command
}

/// A running `ticketing up`; killed when this is dropped.
pub(crate) struct Up {
    pub(crate) process: Child,
    pub(crate) api: String,
    /// URL of the dashboard.
    pub(crate) admin: String,
    /// URL of the database.
    pub(crate) database: String,
}

impl Up {
    pub(crate) async fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[]).await
    }

    pub(crate) async fn start_with(data_dir: &Path, args: &[&str]) -> Self {
        Self::start_in(data_dir, args, &[]).await
    }

    /// Starts `up` with these arguments and environment variables.
    pub(crate) async fn start_in(
        data_dir: &Path,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = up(data_dir);
        command
            .args(args)
            .envs(environment.iter().copied())
            .stderr(Stdio::null());
        Self::of(command).await
    }

    /// Starts this command, which decides where the log goes.
    pub(crate) async fn of(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut find = async |name: &str| loop {
            let line = lines.next_line().await.unwrap().expect("the addresses");
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
    testing::build_programs();
    let output = Command::new(program("ticketing-lab"))
        .args(["stress", "--json", "--url", api])
        .args(args)
        .output()
        .await
        .unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

/// Runs `stress` repeatedly until `happens` is done, and at least once.
///
/// Returns the exit code and report of each run, and the output of `happens`.
pub(crate) async fn stress_while<T>(
    api: &str,
    args: &[&str],
    happens: impl Future<Output = T>,
) -> (Vec<(Option<i32>, Value)>, T) {
    let is_over = Cell::new(false);
    let load = async {
        let mut runs = Vec::new();
        while !is_over.get() {
            runs.push(stress(api, args).await);
        }
        runs
    };
    let happens = async {
        let happened = happens.await;
        is_over.set(true);
        happened
    };
    tokio::join!(load, happens)
}

/// Path of one of our programs.
pub(crate) fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_ticketing")).with_file_name(name)
}

/// A running `api` or `worker`; killed when this is dropped.
pub(crate) struct Program {
    pub(crate) process: Child,
    /// Address of the API, as `host:port`; empty for a worker.
    pub(crate) address: String,
    /// Address of the admin listener, as `host:port`; empty for a worker.
    pub(crate) admin: String,
}

impl Program {
    /// Starts an api at this address, with these arguments, and waits until it listens.
    pub(crate) async fn api(database_url: &str, address: &str, args: &[&str]) -> Self {
        let args = [
            &["--listen", address, "--admin-listen", "127.0.0.1:0"],
            args,
        ]
        .concat();
        Self::start("api", database_url, &args, "api listens").await
    }

    pub(crate) async fn worker(database_url: &str) -> Self {
        Self::worker_with(database_url, &[]).await
    }

    pub(crate) async fn worker_with(database_url: &str, args: &[&str]) -> Self {
        let args = [&["--worker-listen", "127.0.0.1:0"], args].concat();
        Self::start("worker", database_url, &args, "worker started").await
    }

    async fn start(name: &str, database_url: &str, args: &[&str], is_up: &str) -> Self {
        testing::build_programs();
        let mut process = Command::new(program(name))
            .args(args)
            .args(["--log-format", "json"])
            .env("DATABASE_URL", database_url)
            .env("RUST_BACKTRACE", "0")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let fields = loop {
            let Some(line) = log.next_line().await.unwrap() else {
                panic!("{name} does not start: {said:#?}");
            };
            let fields: Value = serde_json::from_str(&line).unwrap_or_default();
            if fields["message"] == is_up {
                break fields;
            }
            said.push(line);
        };
        // Reads the log to its end, because the program would block once the pipe is full.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        let field = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
        Self {
            address: field("address"),
            admin: field("admin"),
            process,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process.id().unwrap()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    /// Sends SIGTERM, as an orchestrator does, and asserts that the program exits with 0.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.process.wait().await.unwrap().code(), Some(0));
    }
}

/// Paths of the admin listener that dashboards poll.
pub(crate) const ADMIN_PATHS: [&str; 6] = [
    "overview",
    "sales",
    "queues",
    "database",
    "workers",
    "interventions",
];

/// Waits until all holds are resolved, and checks every invariant.
pub(crate) async fn assert_all_is_well(pool: &PgPool) {
    let holds = "SELECT count(*) FROM bookings WHERE resolved_at IS NULL";
    eventually("all holds are resolved", async || {
        count(pool, holds).await == 0
    })
    .await;
    let audit = audit::audit(&direct(pool), Duration::ZERO).await.unwrap();
    assert!(audit.passes(), "{audit:#?}");
}

/// Finds an installed program; returns `None` and prints a note if there is none.
///
/// With the environment variable `REQUIRE_PROXIES` it panics instead.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        assert!(env::var_os("REQUIRE_PROXIES").is_none(), "no {name}");
        eprintln!("SKIPPED: {name} is not installed (Debian: apt-get install {name})");
    }
    found
}
