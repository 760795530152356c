//! The whole system, as `ticketing up` runs it. Not every test binary uses all of it.
#![allow(dead_code)]

pub(crate) mod pgbouncer;

use std::{
    cell::Cell,
    env,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Once,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use shared::{
    audit,
    testing::{DataDir, count, direct, eventually},
};
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

pub(crate) fn ticketing() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ticketing"));
    command
        .env_remove("DATABASE_URL")
        // What is for operators has no backtrace all the same.
        .env("RUST_BACKTRACE", "1")
        .kill_on_drop(true);
    command
}

/// Whether the server whose data is here runs.
pub(crate) fn server_runs(data: &DataDir) -> bool {
    data.0.join("postmaster.pid").exists()
}

/// `ticketing up` on this data, and on free ports.
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
        let mut command = up(data_dir);
        command
            .args(args)
            .envs(environment.iter().copied())
            .stderr(Stdio::null());
        Self::of(command).await
    }

    /// Whose log goes where this command says.
    pub(crate) async fn of(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
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

/// Runs `stress` again and again, as long as `happens` takes and at least once. Returns each run's exit code and report,
/// and what happened.
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

/// Builds `api` and `worker`, which a test of this package alone does not. After `cargo test` of all there is nothing left
/// to build.
pub(crate) fn build_programs() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let built = std::process::Command::new(env!("CARGO"))
            .args(["test", "--workspace", "--locked", "--no-run", "--quiet"])
            .status()
            .unwrap();
        assert!(built.success());
    });
}

/// A running `api` or `worker`; killed when this is dropped.
pub(crate) struct Program {
    pub(crate) process: Child,
    /// Where an api serves, and for those who watch it.
    pub(crate) address: String,
    pub(crate) admin: String,
}

impl Program {
    /// At this address, and with these arguments; waits until it listens.
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
        build_programs();
        let mut process =
            Command::new(Path::new(env!("CARGO_BIN_EXE_ticketing")).with_file_name(name))
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
        // To the end, for otherwise it would at last wait for a reader.
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

    /// As an orchestrator does: it must end by itself, and well.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.process.wait().await.unwrap().code(), Some(0));
    }
}

/// What those who watch ask.
pub(crate) const ADMIN_PATHS: [&str; 6] = [
    "overview",
    "sales",
    "queues",
    "database",
    "workers",
    "interventions",
];

/// Waits until everything has come to rest, and checks every invariant.
pub(crate) async fn assert_all_is_well(pool: &PgPool) {
    let holds = "SELECT count(*) FROM bookings WHERE resolved_at IS NULL";
    eventually("all holds are resolved", async || {
        count(pool, holds).await == 0
    })
    .await;
    let audit = audit::audit(&direct(pool), Duration::ZERO).await.unwrap();
    assert!(audit.passes(), "{audit:#?}");
}

/// A program of the system; none, with a word about it, where it is not installed.
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
