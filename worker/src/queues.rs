//! The monitor: one apalis worker for each queue.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use apalis::prelude::*;
use apalis_postgres::PostgresStorage;
use shared::{
    jobs::{CancelShow, ExpireBookings, Job},
    postgres::Database,
};
use tokio::time::{Interval, interval};

use crate::{
    config::Config,
    jobs,
    supervise::{self, Execution, Handler, JobError},
};

/// Interval at which an idle worker polls for due jobs.
///
/// Without it, apalis would poll only at each heartbeat.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Interval of heartbeats. A worker's jobs go to another one after [`MISSED_HEARTBEATS`], 30 s.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
const MISSED_HEARTBEATS: usize = 6;

/// Time that running jobs have to finish once the worker is told to stop.
///
/// It is longer than any job may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);

/// Creates the monitor of all queues: one line for each.
pub(crate) fn monitor(queues: &Queues<'_>) -> Monitor {
    let monitor = Monitor::new().shutdown_timeout(SHUTDOWN_TIMEOUT);
    let expiring = Arc::new(jobs::expire_bookings::ExpireBookingsHandler::default());
    let concurrency = usize::from(queues.config.concurrency);
    let monitor = queues.consume(
        monitor,
        concurrency,
        move |database, job: ExpireBookings| {
            let expiring = expiring.clone();
            async move { expiring.run(&database, job).await }
        },
    );
    // One at a time: a show is seldom cancelled, and its job needs all that one worker can do.
    queues.consume(monitor, 1, |database, job: CancelShow| async move {
        jobs::cancel_show::run(&database, job).await
    })
}

/// Settings and connections that the workers of all queues share.
pub(crate) struct Queues<'a> {
    /// Database for the jobs.
    pub(crate) database: &'a Database,
    /// Database for apalis.
    pub(crate) engine: &'a Database,
    pub(crate) config: &'a Config,
    /// Name of this start of the workers.
    pub(crate) name: &'a str,
}

impl Queues<'_> {
    /// Adds the worker that runs the jobs of a queue, so many at a time.
    fn consume<J: Job, Running>(
        &self,
        monitor: Monitor,
        concurrency: usize,
        run: impl Fn(Database, J) -> Running + Send + Sync + 'static,
    ) -> Monitor
    where
        Running: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        let name = format!("{}-{}", J::QUEUE, self.name);
        let (database, engine) = (self.database.clone(), self.engine.clone());
        let handler = supervise::handler(run);
        let config = apalis_postgres::Config::default()
            .queue(J::QUEUE)
            // A fetch of more jobs than can run at once would starve the heartbeat.
            .batch_size(concurrency)
            .heartbeat_interval(HEARTBEAT_INTERVAL)
            .missed_heartbeats(MISSED_HEARTBEATS)
            // Locking tasks would write every job's row once more, and protect nothing.
            .lock_tasks(false);
        monitor.register(move |_| {
            // A string always decodes. A payload that does not would end the worker each time it is
            // fetched.
            let backend = PostgresStorage::<String>::new(&engine.pool)
                .with_config(config.clone())
                .poll_with_strategy(PollEvery(interval(POLL_INTERVAL)));
            WorkerBuilder::new(name.as_str())
                .backend(backend)
                .concurrency(concurrency)
                .data(database.clone())
                .data(handler.clone())
                // Inline, a worker would poll for jobs at each step of its running jobs, 70 times a
                // second.
                .parallelize(tokio::spawn)
                .build(run_job)
        })
    }
}

/// Wakes an idle worker at an interval to poll for due jobs.
///
/// apalis's own interval does not ask for its next wake when it fires during a fetch; the worker
/// then sleeps until its heartbeat.
struct PollEvery(Interval);

impl PollStrategy for PollEvery {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        // Until it is pending, because only then does it wake the task.
        while self.0.poll_tick(cx).is_ready() {}
        Poll::Pending
    }
}

async fn run_job(
    payload: String,
    execution: Execution,
    database: Data<Database>,
    handler: Data<Handler>,
) -> Result<(), BoxDynError> {
    supervise::supervise(&handler, Database::clone(&database), &execution, payload).await
}

#[cfg(test)]
mod tests;
