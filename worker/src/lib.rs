//! Background jobs: one apalis worker for each queue, and the janitor.

pub mod config;
pub mod janitor;
pub mod jobs;
pub mod listener;
pub mod metrics;
pub mod supervise;

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use apalis::prelude::*;
use apalis_postgres::PostgresStorage;
use shared::{
    http::callers::CallerArgs,
    jobs::{ExpireBookings, Job},
    postgres::{self, Database, in_time},
    queue::engine,
};
use tokio::time::{Instant, Interval, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    supervise::{Execution, Handler, JobError},
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

/// Connections besides one for each concurrent job: for the janitor and for metrics.
const OTHER_CONNECTIONS: u32 = 2;

/// Delay before the workers are restarted after a database error ended them.
///
/// It doubles each time, up to the maximum.
const RESTART_DELAY: Duration = Duration::from_millis(500);
const MAX_RESTART_DELAY: Duration = Duration::from_secs(8);

/// Time after which running workers count as healthy.
///
/// It is longer than they take to notice that the database is not available.
const HEALTHY_AFTER: Duration = Duration::from_secs(15);

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
        consume(database, config, stop).await
    };
    let ((), result) = tokio::join!(janitor, consumer);
    result
}

/// Outcome of waiting for a database.
#[derive(Debug, PartialEq, Eq)]
enum Ready {
    /// The database was ready at once.
    AtOnce,
    /// The database was not ready before.
    AfterAWait,
    /// The worker was told to stop.
    Stopped,
}

/// Interval at which a database that is not ready is checked again.
const READY_INTERVAL: Duration = Duration::from_secs(1);

/// Waits while the database lacks what a worker needs, such as the schema, and logs the reason.
///
/// A database that is not available or does not admit the worker is left to the consumer, which
/// gives up at last.
async fn until_ready(database: &Database, stop: &CancellationToken) -> Ready {
    let waiting = async {
        let mut said = None;
        while let Err(postgres::Error::NotReady(reason)) = in_time(postgres::ready(database)).await
        {
            let reason = reason.to_string();
            if said.as_ref() != Some(&reason) {
                tracing::warn!(reason, "the database is not ready, waiting for it");
                said = Some(reason);
            }
            sleep(READY_INTERVAL).await;
        }
        match said {
            Some(_) => Ready::AfterAWait,
            None => Ready::AtOnce,
        }
    };
    stop.run_until_cancelled(waiting)
        .await
        .unwrap_or(Ready::Stopped)
}

/// Runs the monitor, and restarts it after an error.
///
/// Each time every worker gets a new name: under its old name, apalis would never give the jobs
/// that it left behind to another worker.
async fn consume(
    database: &Database,
    config: &Config,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    // A pool of its own, so that jobs that wait for a lock do not keep the worker from its
    // heartbeat.
    let engine = database.for_queue_engine();
    let process = format!("{}-{:08x}", std::process::id(), fastrand::u32(..));
    let mut failing_since = None;
    let mut delay = RESTART_DELAY;
    for restart in 0.. {
        let (stopped, began) = (stop.clone(), Instant::now());
        let queues = Queues {
            database,
            engine: &engine,
            config,
            name: &format!("{process}-{restart}"),
        };
        let ran = monitor(&queues)
            .run_with_signal(async move {
                stopped.cancelled().await;
                Ok(())
            })
            .await;
        if stop.is_cancelled() {
            break;
        }
        if began.elapsed() > HEALTHY_AFTER {
            (failing_since, delay) = (None, RESTART_DELAY);
        }
        // The worker's connections may have prepared statements that are no longer valid.
        postgres::forget_statements();
        match until_ready(database, stop).await {
            Ready::AtOnce => {}
            Ready::AfterAWait => {
                (failing_since, delay) = (None, RESTART_DELAY);
                continue;
            }
            Ready::Stopped => break,
        }
        // apalis returns `Ok` also if a database error ended the worker.
        let error = ran.err().map(|error| error.to_string());
        tracing::warn!(error, ?delay, "a worker ended and is restarted");
        let failing = failing_since.get_or_insert(began).elapsed();
        ensure!(
            failing < config.give_up_after(),
            "the worker could not work for {} s",
            failing.as_secs(),
        );
        if stop
            .run_until_cancelled(tokio::time::sleep(delay))
            .await
            .is_none()
        {
            break;
        }
        delay = (delay * 2).min(MAX_RESTART_DELAY);
    }
    engine.pool.close().await;
    Ok(())
}

/// Creates the monitor of all queues: one line for each.
fn monitor(queues: &Queues<'_>) -> Monitor {
    let monitor = Monitor::new().shutdown_timeout(SHUTDOWN_TIMEOUT);
    let expiring = Arc::new(jobs::expire_bookings::ExpireBookingsHandler::default());
    queues.consume(monitor, move |database, job: ExpireBookings| {
        let expiring = expiring.clone();
        async move { expiring.run(&database, job).await }
    })
}

/// What the workers of all queues share.
struct Queues<'a> {
    /// Database for the jobs.
    database: &'a Database,
    /// Database for apalis.
    engine: &'a Database,
    config: &'a Config,
    /// Name of this start of the workers.
    name: &'a str,
}

impl Queues<'_> {
    /// Adds the worker that runs the jobs of a queue.
    fn consume<J: Job, Running>(
        &self,
        monitor: Monitor,
        run: impl Fn(Database, J) -> Running + Send + Sync + 'static,
    ) -> Monitor
    where
        Running: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        let concurrency = usize::from(self.config.concurrency);
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
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        task::{Wake, Waker},
    };

    use clap::Parser;
    use futures_util::FutureExt;
    use testing::{TestDatabase, a_hold, a_show, connect, eventually, let_pass};

    use super::*;
    use crate::config::Args;

    /// Run inline, the job would make its worker poll at each of its steps.
    #[tokio::test]
    async fn a_job_of_many_steps_does_not_make_its_worker_poll_more_often() {
        const STEPS: u32 = 300;
        let db = TestDatabase::new().await;
        let sql = format!("ALTER DATABASE {} SET track_functions = 'all'", db.name);
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&db.pool)
            .await
            .unwrap();
        // Opened after the setting was made, so that these connections count their calls.
        let database = connect(&db.url, 8).await.unwrap();
        let show = a_show(&db.pool, 10).await;
        a_hold(&db.pool, &show, 1).await;
        let_pass(&db.pool, 200).await;

        let Args { config, .. } = Args::parse_from(["worker", "--database-url", ""]);
        let queues = Queues {
            database: &database,
            engine: &database,
            config: &config,
            name: "test",
        };
        let monitor = queues.consume(Monitor::new(), |_, _: ExpireBookings| async {
            for _ in 0..STEPS {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        });
        let stop = CancellationToken::new();
        let began = Instant::now();
        let signal = stop.clone().cancelled_owned();
        let running = monitor.run_with_signal(signal.map(Ok));
        let (ran, ()) = tokio::join!(running, async {
            eventually("the job is done", async || {
                sqlx::query_scalar("SELECT status = 'Done' FROM apalis.jobs")
                    .fetch_one(&db.pool)
                    .await
                    .unwrap()
            })
            .await;
            stop.cancel();
        });
        ran.unwrap();
        let intervals = began.elapsed().as_millis() / POLL_INTERVAL.as_millis();
        database.pool.close().await;
        let polls = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_user_functions WHERE funcname = 'get_jobs'";
        let polls: i64 = sqlx::query_scalar(polls).fetch_one(&db.pool).await.unwrap();
        assert!(polls > 0, "polls are counted");
        // One poll for each interval, however long it all took, and some when jobs come and go.
        // With one poll for each step there would be hundreds more.
        let allowed = i64::try_from(intervals).unwrap() + 50;
        assert!(polls < allowed, "{polls} of {allowed} for {STEPS} steps");
    }

    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// However often and whenever the strategy is polled, it wakes the worker again.
    #[tokio::test]
    async fn an_idle_worker_is_woken_again_and_again() {
        let count = Arc::new(Wakes(AtomicU32::new(0)));
        let waker = Waker::from(count.clone());
        let mut poll = PollEvery(interval(Duration::from_millis(5)));
        for wake in 0..10 {
            // Later than the interval fired, as after a long fetch.
            tokio::time::sleep(Duration::from_millis(wake)).await;
            let before = count.0.load(Ordering::Relaxed);
            let mut context = Context::from_waker(&waker);
            assert!(
                poll.poll_drive(&mut context, &PollMetrics::default().snapshot())
                    .is_pending()
            );
            eventually("the worker is woken", async || {
                count.0.load(Ordering::Relaxed) > before
            })
            .await;
        }
    }
}
