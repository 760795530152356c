//! Runs the background jobs: one apalis worker for each queue, and the janitor.

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
use serde::de::DeserializeOwned;
use shared::{
    http::callers::CallerArgs,
    jobs::ExpireBookings,
    postgres::{self, Database, in_time, pooler},
    queue::engine,
};
use tokio::time::{Instant, Interval, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    supervise::{Execution, Handler, JobError},
};

/// How often an idle worker looks for due jobs. Without it, apalis would only look at each heartbeat.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// How often a worker says that it lives, and after how many silent intervals its jobs go to another one: 30 s.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
const MISSED_HEARTBEATS: usize = 6;

/// How long jobs in hand may take to finish once the worker is told to stop; longer than any job may take.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);

/// Connections that a worker needs beside one for each job that it runs: for the janitor and for those who watch.
const OTHER_CONNECTIONS: u32 = 2;

/// How long to wait before the workers are started again after a database error ended them. Doubles each time, up to
/// the longest.
const RESTART_DELAY: Duration = Duration::from_millis(500);
const MAX_RESTART_DELAY: Duration = Duration::from_secs(8);

/// Workers that ran for so long before they ended were well: more than they take to notice that the database is away.
const HEALTHY_AFTER: Duration = Duration::from_secs(15);

/// Runs jobs until `stop`; then those in hand finish.
///
/// # Errors
///
/// When the pool has too few connections for the jobs that may run at the same time, or its address can't be listened on. After a database error, work
/// begins again; after a bounded time of nothing but errors, that is an error too.
pub async fn run(
    database: Database,
    config: &Config,
    callers: &CallerArgs,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    pooler::ensure_none(&database, "A worker")?;
    let (connections, needed) = (
        database.pool.options().get_max_connections(),
        u32::from(config.concurrency) + OTHER_CONNECTIONS,
    );
    ensure!(
        connections >= needed,
        "{} jobs at the same time need at least {needed} connections to the database, {connections} are allowed",
        config.concurrency,
    );
    let listener = listener::bind(config.worker_listen)
        .context("cannot listen for those who watch this worker")?;
    // The end of any of them is the end of all.
    let stop = stop.child_token();
    let watched = listener::serve(listener, database.pool.clone(), callers, stop.clone());
    let working = async {
        let _ends_watched = stop.clone().drop_guard();
        work(&database, config, &stop).await
    };
    let (watched, result) = tokio::join!(watched, working);
    tracing::info!("worker stopped");
    result.and(watched.context("cannot be watched"))
}

async fn work(
    database: &Database,
    config: &Config,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if until_ready(database, stop).await == Ready::Stopped {
        return Ok(());
    }
    // A database that can't be asked is the consumer's business too.
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

/// How it came that the wait for a database is over.
#[derive(Debug, PartialEq, Eq)]
enum Ready {
    /// There was nothing to wait for.
    AtOnce,
    /// It was not ready before.
    AfterAWait,
    /// The worker was told to stop.
    Stopped,
}

/// How often a database that is not ready is looked at.
const READY_INTERVAL: Duration = Duration::from_secs(1);

/// Waits for as long as the database lacks what a worker needs, such as before it was migrated, and says what. A database that
/// is away or keeps the worker out is the consumer's business, which gives up at last.
async fn until_ready(database: &Database, stop: &CancellationToken) -> Ready {
    let waiting = async {
        let mut said = None;
        while let Err(postgres::Error::NotReady(reason)) = in_time(postgres::ready(database)).await
        {
            let reason = reason.to_string();
            if said.as_ref() != Some(&reason) {
                tracing::warn!(reason, "the database is not ready: the worker waits");
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

/// Runs the monitor, again after an error. Each time every worker gets a new name: under its old one, apalis
/// would never give the jobs that it left behind to anybody.
async fn consume(
    database: &Database,
    config: &Config,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    // Of its own, so that jobs that wait for a lock do not keep the worker from its heartbeat.
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
        // Its connections may have statements that are no longer right.
        postgres::forget_statements();
        match until_ready(database, stop).await {
            Ready::AtOnce => {}
            Ready::AfterAWait => {
                (failing_since, delay) = (None, RESTART_DELAY);
                continue;
            }
            Ready::Stopped => break,
        }
        // apalis answers `Ok` also when a database error ended the worker.
        let error = ran.err().map(|error| error.to_string());
        tracing::warn!(error, ?delay, "a worker ended, it is started again");
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

/// All queues: one line each.
fn monitor(queues: &Queues<'_>) -> Monitor {
    let monitor = Monitor::new().shutdown_timeout(SHUTDOWN_TIMEOUT);
    let expiring = Arc::new(jobs::expire_bookings::Jobs::default());
    queues.consume(monitor, ExpireBookings::QUEUE, move |database, job| {
        let expiring = expiring.clone();
        async move { expiring.run(&database, job).await }
    })
}

/// How every queue is consumed.
struct Queues<'a> {
    /// For the jobs.
    database: &'a Database,
    /// For apalis.
    engine: &'a Database,
    config: &'a Config,
    /// Of this start of the workers.
    name: &'a str,
}

impl Queues<'_> {
    /// Adds the worker that runs this queue's jobs.
    fn consume<Job, Running>(
        &self,
        monitor: Monitor,
        queue: &'static str,
        run: impl Fn(Database, Job) -> Running + Send + Sync + 'static,
    ) -> Monitor
    where
        Job: DeserializeOwned + 'static,
        Running: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        let concurrency = usize::from(self.config.concurrency);
        let name = format!("{queue}-{}", self.name);
        let (database, engine) = (self.database.clone(), self.engine.clone());
        let handler = supervise::handler(queue, run);
        let config = apalis_postgres::Config::default()
            .queue(queue)
            // More in one fetch than can run at once would starve the heartbeat.
            .batch_size(concurrency)
            .heartbeat_interval(HEARTBEAT_INTERVAL)
            .missed_heartbeats(MISSED_HEARTBEATS)
            // It writes every job's row once more and guards nothing.
            .lock_tasks(false);
        monitor.register(move |_| {
            // A string always decodes: a payload that does not would end the worker each time it is fetched.
            let backend = PostgresStorage::<String>::new(&engine.pool)
                .with_config(config.clone())
                .poll_with_strategy(PollEvery(interval(POLL_INTERVAL)));
            WorkerBuilder::new(name.as_str())
                .backend(backend)
                .concurrency(concurrency)
                .data(database.clone())
                .data(handler.clone())
                // Inline, a worker would look for jobs at each step of those in hand, 70 times a second.
                .parallelize(tokio::spawn)
                .build(run_job)
        })
    }
}

/// Wakes an idle worker to look for due jobs. apalis's own interval forgets to ask for its next wake when it fires
/// while a fetch is under way; the worker then sleeps until its heartbeat.
struct PollEvery(Interval);

impl PollStrategy for PollEvery {
    fn poll_drive(&mut self, cx: &mut Context<'_>, _: &PollSnapshot) -> Poll<Option<()>> {
        // Until it is pending, for only then it will wake us.
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
    use serde_json::Value;
    use shared::testing::{TestDatabase, a_hold, a_show, connect, eventually, let_pass};

    use super::*;
    use crate::config::Args;

    /// Run inline, it would make its worker look for jobs at each of its steps.
    #[tokio::test]
    async fn a_job_of_many_steps_does_not_make_its_worker_poll_more_often() {
        const STEPS: u32 = 300;
        let db = TestDatabase::new().await;
        let sql = format!("ALTER DATABASE {} SET track_functions = 'all'", db.name);
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&db.pool)
            .await
            .unwrap();
        // Whose connections count their calls.
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
        let monitor = queues.consume(Monitor::new(), ExpireBookings::QUEUE, |_, _: Value| async {
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
            eventually("it is done", async || {
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
        assert!(polls > 0, "they are counted");
        // A look for each interval however long it all took, and some when jobs come and go; with one for each step it would
        // be hundreds more.
        let allowed = i64::try_from(intervals).unwrap() + 50;
        assert!(polls < allowed, "{polls} of {allowed} for {STEPS} steps");
    }

    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// However often and whenever it is polled, it wakes the worker again.
    #[tokio::test]
    async fn an_idle_worker_is_woken_again_and_again() {
        let count = Arc::new(Wakes(AtomicU32::new(0)));
        let waker = Waker::from(count.clone());
        let mut poll = PollEvery(interval(Duration::from_millis(5)));
        for wake in 0..10 {
            // Later than it fired, as after a long fetch.
            tokio::time::sleep(Duration::from_millis(wake)).await;
            let before = count.0.load(Ordering::Relaxed);
            let mut context = Context::from_waker(&waker);
            assert!(
                poll.poll_drive(&mut context, &PollMetrics::default().snapshot())
                    .is_pending()
            );
            eventually("it is woken", async || {
                count.0.load(Ordering::Relaxed) > before
            })
            .await;
        }
    }
}
