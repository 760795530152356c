//! Faults that the queue and its workers survive.
//!
//! These are failing jobs, lost workers, a database that is not available, and a full table.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use shared::{
    postgres::{Database, Leadership},
    queue::housekeeping::{self, Retention},
};
use sqlx::{PgPool, postgres::PgPoolOptions};
use testing::{
    TestDatabase, a_hold, a_show, assert_seats_conserved, available_seats, count, eventually,
    execute, let_pass, now,
};
use worker::{
    config::Config,
    janitor::{self, Cleaned},
};

mod in_process;
use in_process::Worker;

const CONFIG: Config = Config {
    keep_done_jobs: 3,
    ..in_process::CONFIG
};

/// Runs a worker until the condition holds.
async fn work_until(database: &Database, what: &str, condition: impl AsyncFnMut() -> bool) {
    let worker = Worker::start(database, CONFIG);
    eventually(what, condition).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_job_waits_before_it_is_run_again_and_keeps_its_error() {
    let db = TestDatabase::new().await;
    let broken = a_show(&db.pool, 10).await;
    let healthy = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &broken, 1).await;
    a_hold(&db.pool, &healthy, 1).await;
    let_pass(&db.pool, 500).await;
    // One seat too many: returning the held seat would make eleven of ten.
    execute(
        &db.pool,
        "UPDATE shows SET available_seats = seats WHERE id = 1",
    )
    .await;
    // Compares the row's own times, because this test may see the row late. A job waits for 0.75 s
    // or longer after it failed, which is a moment after it was claimed.
    let mut failed: Option<(bool, Value)> = None;
    work_until(&db.database, "both jobs were run", async || {
        failed = sqlx::query_as(
            "SELECT run_at >= lock_at + interval '0.75 s', last_result FROM apalis.jobs WHERE status = 'Failed'",
        )
        .fetch_optional(&db.pool)
        .await
        .unwrap();
        failed.is_some() && available_seats(&db.pool, healthy.id).await == 10
    })
    .await;
    let (waits, result) = failed.unwrap();
    assert!(waits, "it was not run again at once");
    assert!(
        result.to_string().contains("shows_available_seats_range"),
        "{result}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_its_worker_down_is_not_run_for_ever() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &show, 1).await;
    a_hold(&db.pool, &show, 1).await;
    let_pass(&db.pool, 500).await;
    // The state in which apalis leaves a job whose worker was lost in each attempt.
    execute(
        &db.pool,
        "UPDATE apalis.jobs SET attempts = max_attempts WHERE id = (SELECT min(id) FROM apalis.jobs)",
    )
    .await;
    work_until(&db.database, "one is dead and one is done", async || {
        count(
            &db.pool,
            "SELECT count(*) FROM apalis.jobs WHERE status IN ('Done', 'Killed')",
        )
        .await
            == 2
    })
    .await;
    let result: Value =
        sqlx::query_scalar("SELECT last_result FROM apalis.jobs WHERE status = 'Killed'")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert!(
        result.to_string().contains("its worker was lost"),
        "{result}"
    );
}

/// The worker does not end, and does not log the same error again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_a_database_that_is_not_migrated_and_begins_by_itself() {
    let db = TestDatabase::empty().await;
    let worker = Worker::start(&db.database, CONFIG);
    a_worker_is_told(&db).await;
    shared::migrate::run(&db.database).await.unwrap();
    let show = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &show, 1).await;
    let_pass(&db.pool, 200).await;
    eventually("the seat is back", async || {
        available_seats(&db.pool, show.id).await == 10
    })
    .await;

    // A database that was restored without the queue, and then with it.
    execute(&db.pool, "ALTER SCHEMA apalis RENAME TO elsewhere").await;
    a_worker_is_told(&db).await;
    assert!(!worker.running.is_finished(), "the worker waits");
    execute(&db.pool, "ALTER SCHEMA elsewhere RENAME TO apalis").await;
    a_hold(&db.pool, &show, 1).await;
    let_pass(&db.pool, 200).await;
    eventually("the seat is back again", async || {
        available_seats(&db.pool, show.id).await == 10
    })
    .await;
    worker.stop().await;
}

/// Waits until a worker checks what the database lacks.
async fn a_worker_is_told(db: &TestDatabase) {
    let asks = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()
                  AND query LIKE '%schema_compatibility%' AND state_change > $1";
    let since = now(&db.pool).await;
    eventually("a worker checks what is missing", async || {
        let asked: i64 = sqlx::query_scalar(asks)
            .bind(since)
            .fetch_one(&db.pool)
            .await
            .unwrap();
        asked > 0
    })
    .await;
}

/// Runs a round of the janitor.
async fn clean(database: &Database) -> Cleaned {
    clean_at(database, now(&database.pool).await).await
}

/// Runs a round of a janitor whose clock shows `now`.
async fn clean_at(database: &Database, now: DateTime<Utc>) -> Cleaned {
    let (clock, mut cleaned) = (now.into(), Cleaned::default());
    let clean = janitor::clean(database, &CONFIG, &clock, &mut cleaned);
    clean.await.unwrap();
    cleaned
}

#[tokio::test]
async fn the_janitor_rescues_what_lost_workers_had_in_hand() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    for _ in 0..4 {
        a_hold(&db.pool, &show, 1).await;
    }
    execute(
        &db.pool,
        "UPDATE apalis.jobs SET
             status = CASE number WHEN 1 THEN 'Queued' ELSE 'Running' END,
             lock_at = now() - CASE number WHEN 4 THEN interval '10 s' ELSE interval '1 hour' END,
             attempts = CASE number WHEN 3 THEN max_attempts - 1 ELSE 0 END
         FROM (SELECT id AS numbered, row_number() OVER (ORDER BY id) AS number FROM apalis.jobs) AS numbers
         WHERE id = numbered",
    )
    .await;
    let cleaned = clean(&db.database).await;
    let expected = Cleaned {
        rescued: 2,
        died: 1,
        ..Cleaned::default()
    };
    assert_eq!(cleaned, expected);
    let states: Vec<(String, i32)> =
        sqlx::query_as("SELECT status, attempts FROM apalis.jobs ORDER BY id")
            .fetch_all(&db.pool)
            .await
            .unwrap();
    let expected = [
        ("Pending", 1),
        ("Pending", 1),
        ("Killed", 12),
        ("Running", 0),
    ];
    assert_eq!(states, expected.map(|(status, n)| (status.to_owned(), n)));
    let again = clean(&db.database).await;
    assert_eq!(again, Cleaned::default());
}

/// On Citus the sweep fails if a server is not available.
///
/// All servers are queried for overdue holds.
#[tokio::test]
async fn the_janitor_rescues_also_when_it_cannot_sweep() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &show, 1).await;
    execute(
        &db.pool,
        "UPDATE apalis.jobs SET status = 'Running', lock_at = now() - interval '1 hour'",
    )
    .await;
    execute(&db.pool, "ALTER TABLE batches RENAME TO elsewhere").await;
    let mut cleaned = Cleaned::default();
    let clock = now(&db.pool).await.into();
    let clean = janitor::clean(&db.database, &CONFIG, &clock, &mut cleaned).await;
    assert!(clean.is_err(), "the failure is reported");
    assert_eq!(cleaned.rescued, 1);
}

#[tokio::test]
async fn the_janitor_prunes_what_is_over_by_age_and_by_number() {
    let db = TestDatabase::new().await;
    execute(
        &db.pool,
        "INSERT INTO apalis.workers (id, worker_type, storage_name, last_seen)
         VALUES ('gone', 't', 's', now() - interval '2 days'), ('needed', 't', 's', now() - interval '2 days'),
                ('here', 't', 's', now())",
    )
    .await;
    execute(
        &db.pool,
        "INSERT INTO apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, done_at, lock_by)
         SELECT name, 't', '{}'::bytea, status, 1, CASE WHEN name LIKE 'retried%' THEN 2 ELSE 1 END,
                now(), now() - age::interval, CASE WHEN name = 'runs' THEN 'needed' ELSE 'gone' END
         FROM (VALUES ('old', 'Done', '2 h'), ('fourth', 'Done', '4 min'), ('third', 'Done', '3 min'),
                      ('second', 'Done', '2 min'), ('first', 'Done', '1 min'),
                      ('dead', 'Killed', '2 h'), ('long dead', 'Killed', '25 h'), ('failed', 'Failed', '25 h'),
                      ('retried', 'Failed', '25 h'), ('waits', 'Pending', '25 h'), ('runs', 'Running', '25 h')) AS rows (name, status, age)",
    )
    .await;
    execute(
        &db.pool,
        "INSERT INTO idempotency_keys (owner, key, fingerprint, show_id, created_at)
         VALUES (0, 'old', '', 1, now() - interval '61 minutes'), (0, 'young', '', 1, now() - interval '59 minutes')",
    )
    .await;
    let cleaned = clean(&db.database).await;
    assert_eq!((cleaned.pruned_jobs, cleaned.pruned_workers), (4, 1));
    assert_eq!(cleaned.pruned_keys, 1);
    let left: Vec<String> = sqlx::query_scalar("SELECT id FROM apalis.jobs ORDER BY id")
        .fetch_all(&db.pool)
        .await
        .unwrap();
    assert_eq!(
        left,
        [
            "dead", "first", "retried", "runs", "second", "third", "waits"
        ]
    );
}

/// The database's clock is set forward, and perhaps back again.
#[tokio::test]
async fn a_clock_that_is_set_forward_makes_no_key_older() {
    let db = TestDatabase::new().await;
    execute(
        &db.pool,
        "INSERT INTO idempotency_keys (owner, key, fingerprint, show_id, created_at)
         VALUES (0, 'k', '', 1, now() - interval '25 hours')",
    )
    .await;
    // By the clock of a process that read it before it was set 25 hours forward, the key is new.
    let measured = now(&db.pool).await - TimeDelta::hours(25);
    assert_eq!(clean_at(&db.database, measured).await.pruned_keys, 0);
    assert_eq!(clean(&db.database).await.pruned_keys, 1);
}

#[tokio::test]
async fn another_one_leads_when_the_leader_is_gone() {
    let db = TestDatabase::new().await;
    let mut leader = Leadership::try_take(&db.pool, 1).await.unwrap().unwrap();
    assert!(
        Leadership::try_take(&db.pool, 1).await.unwrap().is_none(),
        "there is a leader"
    );
    leader.check().await.unwrap();
    execute(
        &db.pool,
        "SELECT pg_terminate_backend(pid) FROM pg_locks
         WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .await;
    eventually("another one leads", async || {
        Leadership::try_take(&db.pool, 1).await.unwrap().is_some()
    })
    .await;
    assert!(
        leader.check().await.is_err(),
        "it knows that it is not the leader"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_database_ends_with_an_error_and_before_that_comes_back() {
    let (db, elsewhere) = (TestDatabase::new().await, TestDatabase::new().await);
    let name = &db.name;
    let allow = async |allowed: bool| {
        let sql = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&elsewhere.pool)
            .await
            .unwrap();
        if !allowed {
            sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
            )
            .bind(name)
            .execute(&elsewhere.pool)
            .await
            .unwrap();
        }
    };
    let show = a_show(&db.pool, 10).await;
    let config = Config {
        give_up_seconds: 20,
        ..CONFIG
    };
    let worker = Worker::start(&db.database, config);
    eventually("the worker has registered", async || {
        count(&db.pool, "SELECT count(*) FROM apalis.workers").await == 2
    })
    .await;
    allow(false).await;
    allow(true).await;
    eventually("there are connections again", async || {
        sqlx::query("SELECT 1").execute(&db.pool).await.is_ok()
    })
    .await;
    a_hold(&db.pool, &show, 1).await;
    let_pass(&db.pool, 500).await;
    eventually("the worker works", async || {
        available_seats(&db.pool, show.id).await == 10
    })
    .await;
    assert_seats_conserved(&db.pool).await;

    allow(false).await;
    let error = worker.running.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("could not work"), "{error}");
}

/// Returns the number of buffers that one fetch of a worker reads, once the catalog is cached.
async fn buffers_of_a_fetch(pool: &PgPool) -> i64 {
    let mut connection = pool.acquire().await.unwrap();
    let mut buffers = 0;
    for _ in 0..2 {
        let plan: Value = sqlx::query_scalar(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM apalis.get_jobs('me', 'expire-bookings', 8)",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        let blocks = |kind| plan[0]["Plan"][kind].as_i64().unwrap();
        buffers = blocks("Shared Hit Blocks") + blocks("Shared Read Blocks");
    }
    buffers
}

/// Asserts buffers and not time: what a poll of the queue reads must not grow with it.
#[tokio::test]
async fn a_million_scheduled_jobs_cost_an_idle_look_nothing() {
    let db = TestDatabase::new().await;
    // One connection, so that it reports what was read here; and without a timeout.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect(&db.url)
        .await
        .unwrap();
    execute(
        &pool,
        "INSERT INTO apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, done_at)
         SELECT 'scheduled ' || n, 'expire-bookings', '{\"bookingIds\":[1]}'::bytea, 'Pending', 0, 12,
                now() + interval '1 day' + n * interval '1 ms', NULL
         FROM generate_series(1, 1000000) AS n
         UNION ALL
         SELECT 'done ' || n, 'expire-bookings', '{}'::bytea, 'Done', 1, 12, now(), now() - n * interval '1 ms'
         FROM generate_series(1, 20000) AS n",
    )
    .await;
    execute(&pool, "VACUUM ANALYZE apalis.jobs").await;

    let read = buffers_of_a_fetch(&db.pool).await;
    // The descents of three indexes: of jobs that are due, of pauses, and of the catalog.
    assert!(read <= 16, "{read} buffers for an idle poll");

    // If all of them are due, a fetch reads what it takes and not the rest.
    execute(
        &pool,
        "UPDATE apalis.jobs SET run_at = run_at - interval '2 days' WHERE status = 'Pending'",
    )
    .await;
    execute(&pool, "VACUUM ANALYZE apalis.jobs").await;
    execute(
        &pool,
        "INSERT INTO apalis.workers (id, worker_type, storage_name) VALUES ('me', 't', 's')",
    )
    .await;
    let read = buffers_of_a_fetch(&db.pool).await;
    assert!(
        (8..=400).contains(&read),
        "{read} buffers for 8 of a million jobs"
    );

    let blocks = async || -> i64 {
        execute(&pool, "SELECT pg_stat_force_next_flush()").await;
        count(
            &pool,
            "SELECT (heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read)::bigint
             FROM pg_statio_user_tables WHERE schemaname = 'apalis' AND relname = 'jobs'",
        )
        .await
    };
    let keep = Retention {
        done: Duration::from_secs(10),
        done_max: 100_000,
        dead: Duration::ZERO,
    };
    let before = blocks().await;
    assert_eq!(housekeeping::prune_done(&pool, &keep).await.unwrap(), 1000);
    let read = blocks().await - before;
    assert!(read > 0, "something was read");
    assert!(read < 30_000, "{read} blocks for 1000 of a million jobs");
}
