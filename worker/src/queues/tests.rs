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
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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
    let monitor = queues.consume(
        Monitor::new(),
        usize::from(config.concurrency),
        |_, _: ExpireBookings| async {
            for _ in 0..STEPS {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        },
    );
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
