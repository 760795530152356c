//! A worker in the test's own process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use shared::{http::callers::CallerArgs, postgres::Database};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use worker::config::Config;

/// Where a test does not say otherwise.
pub(crate) const CONFIG: Config = Config {
    concurrency: 8,
    worker_listen: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)),
    janitor_seconds: 3600,
    overdue_grace_seconds: 3600,
    keep_done_hours: 1,
    keep_done_jobs: 1000,
    keep_dead_days: 1,
    keep_keys_hours: 1,
    give_up_seconds: 300,
};

/// A worker in this process.
pub(crate) struct Worker {
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<anyhow::Result<()>>,
}

impl Worker {
    pub(crate) fn start(database: &Database, config: Config) -> Self {
        let stop = CancellationToken::new();
        let (database, stopped) = (database.clone(), stop.clone());
        let running = tokio::spawn(async move {
            let callers = CallerArgs::default();
            worker::run(database, &config, &callers, stopped).await
        });
        Self { stop, running }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}
