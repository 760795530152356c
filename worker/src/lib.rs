//! Background jobs: one apalis worker for each queue, and the janitor.

pub mod config;
mod consume;
pub mod janitor;
pub mod jobs;
pub mod listener;
pub mod metrics;
mod queues;
mod ready;
pub mod supervise;

use anyhow::{Context as _, ensure};
use shared::{
    http::callers::CallerArgs,
    postgres::{Database, in_time},
    queue::engine,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    ready::{Ready, until_ready},
};

/// Connections besides one for each concurrent job: for the janitor and for metrics.
const OTHER_CONNECTIONS: u32 = 2;

/// Runs jobs until `stop`, and then lets running jobs finish.
///
/// After a database error the work starts again.
///
/// # Errors
///
/// Fails if the pool has too few connections for the concurrent jobs, the address can't be bound,
/// or the work keeps failing for `give_up_seconds`.
pub async fn run(
    database: Database,
    config: &Config,
    callers: &CallerArgs,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    database.ensure_direct("A worker")?;
    let (connections, needed) = (
        database.pool.options().get_max_connections(),
        u32::from(config.concurrency) + OTHER_CONNECTIONS,
    );
    ensure!(
        connections >= needed,
        "{} concurrent jobs need at least {needed} connections to the database, {connections} are allowed",
        config.concurrency,
    );
    let listener = listener::bind(config.worker_listen)
        .context("cannot bind the address of the metrics listener")?;
    // If any of them ends, all of them end.
    let stop = stop.child_token();
    let watched = listener::serve(listener, database.pool.clone(), callers, stop.clone());
    let working = async {
        let _ends_watched = stop.clone().drop_guard();
        work(&database, config, &stop).await
    };
    let (watched, result) = tokio::join!(watched, working);
    tracing::info!("worker stopped");
    result.and(watched.context("cannot serve metrics"))
}

async fn work(
    database: &Database,
    config: &Config,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if until_ready(database, stop).await == Ready::Stopped {
        return Ok(());
    }
    // A database that can't be queried is left to the consumer, too.
    ensure!(
        !matches!(in_time(engine::is_applied(&database.pool)).await, Ok(false)),
        "the database's function apalis.get_jobs is not the one that this worker needs: run `ticketing migrate` of this version",
    );
    tracing::info!(concurrency = config.concurrency, "worker started");
    let janitor = janitor::run(database.clone(), config, stop.clone());
    let consumer = async {
        let _ends_janitor = stop.clone().drop_guard();
        consume::consume(database, config, stop).await
    };
    let ((), result) = tokio::join!(janitor, consumer);
    result
}
