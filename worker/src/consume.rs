//! Consuming the queues, and starting again after errors of the database.

use std::time::Duration;

use anyhow::ensure;
use shared::postgres::{self, Database};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    queues::{self, Queues},
    ready::{Ready, until_ready},
};

/// Delay before the workers are restarted after a database error ended them.
///
/// It doubles each time, up to the maximum.
const RESTART_DELAY: Duration = Duration::from_millis(500);
const MAX_RESTART_DELAY: Duration = Duration::from_secs(8);

/// Time after which running workers count as healthy.
///
/// It is longer than they take to notice that the database is not available.
const HEALTHY_AFTER: Duration = Duration::from_secs(15);

/// Runs the monitor, and restarts it after an error.
///
/// Each time every worker gets a new name: under its old name, apalis would never give the jobs
/// that it left behind to another worker.
pub(crate) async fn consume(
    database: &Database,
    config: &Config,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    // A pool of its own, so that jobs that wait for a lock do not keep the worker from its
    // heartbeat.
    let engine = database.for_queue_engine();
    let process = format!("{}-{:08x}", std::process::id(), fastrand::u32(..));
    let mut failures = Failures::default();
    for restart in 0.. {
        let (stopped, began) = (stop.clone(), Instant::now());
        let queues = Queues {
            database,
            engine: &engine,
            config,
            name: &format!("{process}-{restart}"),
        };
        let ran = queues::monitor(&queues)
            .run_with_signal(async move {
                stopped.cancelled().await;
                Ok(())
            })
            .await;
        if stop.is_cancelled() {
            break;
        }
        if began.elapsed() > HEALTHY_AFTER {
            failures = Failures::default();
        }
        // The worker's connections may have prepared statements that are no longer valid.
        postgres::forget_statements();
        match until_ready(database, stop).await {
            Ready::AtOnce => {}
            Ready::AfterAWait => {
                failures = Failures::default();
                continue;
            }
            Ready::Stopped => break,
        }
        // apalis returns `Ok` also if a database error ended the worker.
        let error = ran.err().map(|error| error.to_string());
        let delay = failures.next(began, config.give_up_after())?;
        tracing::warn!(error, ?delay, "a worker ended and is restarted");
        if stop.run_until_cancelled(sleep(delay)).await.is_none() {
            break;
        }
    }
    engine.pool.close().await;
    Ok(())
}

/// Failures of the workers since they were last healthy.
#[derive(Default)]
struct Failures {
    since: Option<Instant>,
    count: u32,
}

impl Failures {
    /// Counts a failure of workers that were started at `began`, and returns the delay before they
    /// are restarted.
    ///
    /// # Errors
    ///
    /// Fails once they have been failing for `give_up_after`.
    fn next(&mut self, began: Instant, give_up_after: Duration) -> anyhow::Result<Duration> {
        let failing = self.since.get_or_insert(began).elapsed();
        ensure!(
            failing < give_up_after,
            "the worker could not work for {} s",
            failing.as_secs(),
        );
        let delay = RESTART_DELAY.saturating_mul(2_u32.saturating_pow(self.count));
        self.count += 1;
        Ok(delay.min(MAX_RESTART_DELAY))
    }
}
