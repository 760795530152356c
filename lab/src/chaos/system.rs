//! The system under test: PostgreSQL, two apis and two workers, restarted after each fault.

use std::{
    iter,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::{
    errno::Errno,
    sys::signal::{self, Signal},
    unistd::Pid,
};
use shared::{
    local_postgres::{DATABASE, LocalPostgres, Mode},
    postgres::Database,
    process,
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until},
};

use super::fault::Fault;
use crate::program::{Program, Start};

/// How long a worker stays suspended.
///
/// Longer than the 30 s (six heartbeats of 5 s) after which a silent worker counts as dead.
const SUSPENDED: Duration = Duration::from_secs(36);

/// Timeout for the start of a program while the database is available.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Timeout for PostgreSQL to exit.
const END_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct System {
    dir: PathBuf,
    database_url: String,
    /// `None` only while PostgreSQL is down.
    postgres: Option<LocalPostgres>,
    apis: Vec<Api>,
    workers: Vec<Worker>,
}

struct Api {
    program: Program,
    address: String,
}

struct Worker {
    program: Program,
    suspended_until: Option<Instant>,
}

impl System {
    /// Starts all processes, with data and logs in `dir`.
    pub(super) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let postgres = start_postgres(dir).await?;
        let database_url = postgres.default_url();
        let database = postgres.connect(DATABASE).await?;
        shared::migrate::run(&database).await?;
        database.pool.close().await;
        let mut system = Self {
            dir: dir.to_owned(),
            database_url,
            postgres: Some(postgres),
            apis: Vec::new(),
            workers: Vec::new(),
        };
        for index in 0..2 {
            let (program, address) = system.start_api(index, "127.0.0.1:0").await?;
            system.apis.push(Api { program, address });
            let worker = system.start_worker(index).await?;
            system.workers.push(worker);
        }
        Ok(system)
    }

    pub(super) fn api_urls(&self) -> Vec<String> {
        let url = |api: &Api| format!("http://{}", api.address);
        self.apis.iter().map(url).collect()
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Database> {
        self.postgres()?.connect(DATABASE).await
    }

    /// Injects a fault, and restarts the processes that it ended.
    pub(super) async fn suffer(&mut self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::KillApi(index) => {
                self.apis[index].program.kill().await?;
                let address = self.apis[index].address.clone();
                self.apis[index].program = self.start_api(index, &address).await?.0;
            }
            Fault::KillWorker(index) => {
                self.workers[index].program.kill().await?;
                self.workers[index] = self.start_worker(index).await?;
            }
            Fault::KillPostgres => {
                self.signal_postgres(Signal::SIGKILL)?;
                self.restart_postgres().await?;
            }
            Fault::RestartPostgres => {
                let id = self.postgres()?.process_id()?;
                // SIGQUIT is PostgreSQL's immediate shutdown.
                signal::kill(Pid::from_raw(id), Signal::SIGQUIT)?;
                self.restart_postgres().await?;
            }
            Fault::CutConnections(count) => {
                self.postgres()?.cut_connections(DATABASE, count).await?;
            }
            Fault::SuspendWorker(index) => {
                let worker = &mut self.workers[index];
                worker.program.signal(Signal::SIGSTOP)?;
                worker.suspended_until = Some(Instant::now() + SUSPENDED);
            }
            Fault::SuspendPostgres(time) => {
                self.signal_postgres(Signal::SIGSTOP)?;
                sleep(time).await;
                self.signal_postgres(Signal::SIGCONT)?;
            }
        }
        Ok(())
    }

    /// Resumes the suspended workers, each once its time is over.
    pub(super) async fn heal(&mut self) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            if let Some(until) = worker.suspended_until.take() {
                sleep_until(until).await;
                worker.program.signal(Signal::SIGCONT)?;
            }
        }
        Ok(())
    }

    /// Returns the names of the programs that exited by themselves.
    pub(super) fn find_ended(&mut self) -> Vec<String> {
        let apis = self.apis.iter_mut().enumerate();
        let workers = self.workers.iter_mut().enumerate();
        apis.map(|(index, api)| (format!("api {index}"), &mut api.program))
            .chain(workers.map(|(index, w)| (format!("worker {index}"), &mut w.program)))
            .filter_map(|(name, program)| (!program.is_running()).then_some(name))
            .collect()
    }

    /// Stops all processes with SIGTERM, as an orchestrator would; PostgreSQL last.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        for api in self.apis.drain(..) {
            api.program.stop().await?;
        }
        for worker in self.workers.drain(..) {
            worker.program.stop().await?;
        }
        let postgres = self.postgres.take();
        Ok(spawn_blocking(|| drop(postgres)).await?)
    }

    async fn start_api(&self, index: usize, address: &str) -> anyhow::Result<(Program, String)> {
        let log_file = self.dir.join(format!("api-{index}.log"));
        let start = Start {
            database_url: &self.database_url,
            args: &["--listen", address],
            log_file: Some(&log_file),
        };
        let starting = tokio::time::timeout(START_TIMEOUT, Program::api(start));
        let (program, addresses) = starting.await.context("the api did not start in time")??;
        Ok((program, addresses.api))
    }

    /// Starts a worker, and waits until it works: a program that can't connect at its start exits.
    async fn start_worker(&self, index: usize) -> anyhow::Result<Worker> {
        let log_file = self.dir.join(format!("worker-{index}.log"));
        let starting = Program::worker(Start {
            database_url: &self.database_url,
            args: &[],
            log_file: Some(&log_file),
        });
        let started = tokio::time::timeout(START_TIMEOUT, starting).await;
        let program = started.context("the worker did not start in time")??;
        Ok(Worker {
            program,
            suspended_until: None,
        })
    }

    fn postgres(&self) -> anyhow::Result<&LocalPostgres> {
        self.postgres.as_ref().context("PostgreSQL is down")
    }

    /// Sends a signal to all processes of PostgreSQL.
    ///
    /// The postmaster alone is not enough: its children exit by themselves when they notice that
    /// it is gone.
    fn signal_postgres(&self, signal: Signal) -> anyhow::Result<()> {
        let parent = self.postgres()?.process_id()?;
        for id in iter::once(parent).chain(children(parent)?) {
            match signal::kill(Pid::from_raw(id), signal) {
                // The process exited in the meantime.
                Err(Errno::ESRCH) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Waits until PostgreSQL has exited, then starts it again.
    async fn restart_postgres(&mut self) -> anyhow::Result<()> {
        let id = self.postgres()?.process_id()?;
        let deadline = Instant::now() + END_TIMEOUT;
        while process::is_running(id) {
            ensure!(Instant::now() < deadline, "PostgreSQL did not exit in time");
            sleep(Duration::from_millis(10)).await;
        }
        let ended = self.postgres.take();
        spawn_blocking(|| drop(ended)).await?;
        self.postgres = Some(start_postgres(&self.dir).await?);
        Ok(())
    }
}

impl Drop for System {
    /// Resumes a suspended PostgreSQL, because it cannot be stopped otherwise.
    fn drop(&mut self) {
        if self.postgres.is_some() {
            let _ = self.signal_postgres(Signal::SIGCONT);
        }
    }
}

async fn start_postgres(dir: &Path) -> anyhow::Result<LocalPostgres> {
    let data_dir = dir.join("postgres");
    spawn_blocking(move || LocalPostgres::start(&data_dir, Mode::Durable)).await?
}

/// Returns the child processes of a process.
fn children(parent: i32) -> anyhow::Result<Vec<i32>> {
    let output = Command::new("ps")
        .args(["-A", "-o", "ppid=,pid="])
        .output()
        .context("cannot list processes with ps")?;
    let text = String::from_utf8(output.stdout)?;
    let mut children = Vec::new();
    for line in text.lines() {
        let mut ids = line.split_whitespace().map(str::parse::<i32>);
        if let (Some(Ok(of)), Some(Ok(child))) = (ids.next(), ids.next())
            && of == parent
        {
            children.push(child);
        }
    }
    Ok(children)
}
