//! Sharp edges of the queue's engine, each of them seen in a run. None of them reaches a user.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use testing::{
    TestDatabase, a_hold, a_show, assert_seats_conserved, available_seats, count, eventually,
    execute, let_pass, now, until_one_waits_for_a_lock,
};
use worker::config::Config;

mod in_process;
use in_process::{CONFIG, Worker};

/// Counts the workers of the queue of expiry jobs.
const WORKERS: &str = "SELECT count(*) FROM apalis.workers WHERE worker_type = 'expire-bookings'";

/// Such a row would end each worker that takes it, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_apalis_cannot_read_is_dead_and_the_queue_goes_on() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    execute(
        &db.pool,
        "ALTER TABLE apalis.jobs DROP CONSTRAINT jobs_times_range",
    )
    .await;
    execute(
        &db.pool,
        "INSERT INTO apalis.jobs (id, job_type, job, run_at, attempts, priority, metadata, done_at)
         SELECT coalesce(id, '01ARZ3NDEKTSV4RRFFQ69G5F' || to_char(number, 'FM00')), 'expire-bookings',
                job::bytea, run_at::timestamptz, attempts, priority, metadata::hstore,
                CASE WHEN number = 21 THEN 'infinity'::timestamptz END
         FROM (VALUES
             (10, 'not-a-ulid', '{}',            '2000-01-01', 0,  0,  NULL),
             (11, NULL,         '{}',            '1960-01-01', 0,  0,  NULL),
             (12, NULL,         '{}',            '-infinity',  0,  0,  NULL),
             (13, NULL,         '{}',            '2000-01-01', -1, 0,  NULL),
             (14, NULL,         '{}',            '2000-01-01', 0,  -1, NULL),
             (15, NULL,         '{}',            '2000-01-01', 0,  0,  'trace=>NULL'),
             (16, NULL,         'no JSON',       '2000-01-01', 0,  0,  NULL),
             (17, NULL,         '[1e999]',       '2000-01-01', 0,  0,  NULL),
             (18, NULL,         '\"\\\\ud800\"', '2000-01-01', 0,  0,  NULL),
             (19, NULL,         '\\xff00',       '2000-01-01', 0,  0,  NULL),
             (20, NULL,         repeat('[', 5000), '2000-01-01', 0, 0, NULL),
             (21, NULL,         '{}',            '2000-01-01', 0,  0,  NULL)
         ) AS bad (number, id, job, run_at, attempts, priority, metadata)",
    )
    .await;
    a_hold(&db.pool, &show, 1).await;
    let_pass(&db.pool, 200).await;
    let worker = Worker::start(&db.database, CONFIG);
    eventually("the good job is done", async || {
        available_seats(&db.pool, show.id).await == 10
    })
    .await;
    eventually("the bad jobs are dead", async || {
        count(
            &db.pool,
            "SELECT count(*) FROM apalis.jobs WHERE status = 'Killed'",
        )
        .await
            == 12
    })
    .await;
    worker.stop().await;
    let reasons: Vec<Value> =
        sqlx::query_scalar("SELECT last_result FROM apalis.jobs WHERE status = 'Killed'")
            .fetch_all(&db.pool)
            .await
            .unwrap();
    for reason in reasons {
        let reason = reason["Err"].as_str().unwrap().to_owned();
        assert!(
            reason.contains("unreadable") || reason.contains("does not decode"),
            "{reason}"
        );
    }
    let workers = count(&db.pool, WORKERS).await;
    assert_eq!(workers, 1, "no bad job ended the worker");
}

/// Under the old name, the worker would seem to be running the jobs that it left behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_starts_again_has_a_new_name_and_runs_what_the_old_one_left() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &show, 1).await;
    let workers = async || count(&db.pool, WORKERS).await;
    let worker = Worker::start(&db.database, CONFIG);
    eventually("the worker has registered", async || workers().await == 1).await;
    worker.stop().await;
    let_pass(&db.pool, 200).await;
    // The state after a `kill -9` some time ago.
    execute(
        &db.pool,
        "UPDATE apalis.jobs SET status = 'Running', lock_at = now(), lock_by = (SELECT id FROM apalis.workers WHERE worker_type = 'expire-bookings')",
    )
    .await;
    execute(
        &db.pool,
        "UPDATE apalis.workers SET last_seen = now() - interval '31 s'",
    )
    .await;
    let worker = Worker::start(&db.database, CONFIG);
    eventually("the job is run", async || {
        available_seats(&db.pool, show.id).await == 10
    })
    .await;
    worker.stop().await;
    assert_eq!(workers().await, 2, "two names");
}

/// While heartbeats are missing, another worker would take the same jobs.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_jobs_all_wait_says_that_it_lives() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &show, 1).await;
    let_pass(&db.pool, 200).await;
    let mut lock = db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM shows FOR UPDATE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let config = Config {
        concurrency: 1,
        ..CONFIG
    };
    let worker = Worker::start(&db.database, config);
    until_one_waits_for_a_lock(&db.pool).await;
    let began = now(&db.pool).await;
    eventually("a heartbeat", async || {
        let seen: DateTime<Utc> = sqlx::query_scalar("SELECT max(last_seen) FROM apalis.workers")
            .fetch_one(&db.pool)
            .await
            .unwrap();
        seen > began
    })
    .await;
    lock.rollback().await.unwrap();
    eventually("the seat is back", async || {
        available_seats(&db.pool, show.id).await == 10
    })
    .await;
    worker.stop().await;
    assert_seats_conserved(&db.pool).await;
}

/// Otherwise a stop would wait for the results of more jobs than apalis can remember.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ran_many_jobs_stops_at_once() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 1000).await;
    for _ in 0..100 {
        a_hold(&db.pool, &show, 1).await;
    }
    let_pass(&db.pool, 200).await;
    let config = Config {
        concurrency: 2,
        ..CONFIG
    };
    let worker = Worker::start(&db.database, config);
    eventually("all are done", async || {
        count(
            &db.pool,
            "SELECT count(*) FROM apalis.jobs WHERE status = 'Done'",
        )
        .await
            == 100
    })
    .await;
    // Otherwise the stop would take 25 s.
    tokio::time::timeout(Duration::from_secs(20), worker.stop())
        .await
        .expect("it stops before the timeout");
}

#[tokio::test]
async fn a_job_has_no_key_that_could_abort_its_bookings_transaction() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &show, 1).await;
    let without = "SELECT count(*) FROM apalis.jobs WHERE idempotency_key IS NULL";
    assert_eq!(count(&db.pool, without).await, 1);
}

/// Each such index would be written again at every change of a job.
#[tokio::test]
async fn the_jobs_have_no_index_twice() {
    let db = TestDatabase::new().await;
    let twins: Vec<String> = sqlx::query_scalar(
        "SELECT string_agg(indexrelid::regclass::text, ', ' ORDER BY indexrelid)
         FROM pg_index WHERE indrelid = 'apalis.jobs'::regclass
         GROUP BY indkey::text, coalesce(pg_get_expr(indpred, indrelid), '')
         HAVING count(*) > 1",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert!(twins.is_empty(), "{twins:?}");
}
