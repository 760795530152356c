//! Tests of the real `worker` binary.

use std::process::Stdio;

use chrono::{DateTime, Utc};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use shared::api_key::{self, NewApiKey, Scope};
use sqlx::PgPool;
use testing::{
    SteppedClock, TestDatabase, a_hold, a_show, a_show_with_hold, assert_seats_conserved,
    available_seats, count, eventually, execute, let_pass, now, stored_status,
    until_one_waits_for_a_lock,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::Instant,
};

fn start_worker(db: &TestDatabase) -> Child {
    worker(db).stderr(Stdio::null()).spawn().unwrap()
}

fn worker(db: &TestDatabase) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    command.env("DATABASE_URL", &db.url).kill_on_drop(true);
    command
}

fn terminate(process: &Child) {
    let id = i32::try_from(process.id().unwrap()).unwrap();
    kill(Pid::from_raw(id), Signal::SIGTERM).unwrap();
}

async fn workers(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM apalis.workers WHERE worker_type = 'expire-bookings'")
        .fetch_one(pool)
        .await
        .unwrap()
}

/// Starts a worker with a metrics listener at this address, and returns the URL of the metrics.
async fn start_watched(db: &TestDatabase, listen: &str) -> (Child, String) {
    let mut worker = worker(db)
        .args(["--worker-listen", listen, "--log-format", "json"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(worker.stderr.take().unwrap()).lines();
    loop {
        let line = log.next_line().await.unwrap().expect("a metrics address");
        let line: Value = serde_json::from_str(&line).unwrap();
        if let Some(metrics) = line["metrics"].as_str() {
            let metrics = metrics.replace("0.0.0.0", "127.0.0.1");
            tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
            return (worker, metrics);
        }
    }
}

#[tokio::test]
async fn a_worker_tells_of_its_jobs_and_of_how_late_holds_failed() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &show, 2).await;
    let_pass(&db.pool, 200).await;
    let (_worker, metrics) = start_watched(&db, "127.0.0.1:0").await;
    let figures = async || reqwest::get(&metrics).await.unwrap().text().await.unwrap();
    let done = "ticketing_jobs_total{outcome=\"done\",queue=\"expire-bookings\"} 1";
    eventually("the job is counted", async || {
        figures().await.contains(done)
    })
    .await;
    let figures = figures().await;
    for line in [
        "ticketing_bookings_total{outcome=\"failed\"} 1",
        // The hold failed 80 s late.
        "ticketing_expiry_lag_seconds_bucket{le=\"60\"} 0",
        "ticketing_expiry_lag_seconds_bucket{le=\"300\"} 1",
        "ticketing_job_duration_seconds_count{queue=\"expire-bookings\"} 1",
        "ticketing_database_connections{pool=\"worker\",state=\"max\"} 16",
    ] {
        assert!(
            figures.lines().any(|told| told == line),
            "{line} in {figures}"
        );
    }
    let live = metrics.replace("/metrics", "/health/live");
    assert_eq!(reqwest::get(live).await.unwrap().status(), 200);
}

#[tokio::test]
async fn other_machines_need_a_key_to_watch_a_worker() {
    let db = TestDatabase::new().await;
    let (_worker, metrics) = start_watched(&db, "0.0.0.0:0").await;
    let make = async |name: &str, scope| {
        let new = NewApiKey {
            name,
            scopes: &[scope],
            requests_per_second: None,
        };
        api_key::create(&db.pool, &new).await.unwrap().reveal()
    };
    let client = reqwest::Client::new();
    let ask = async |key: &str| {
        client
            .get(&metrics)
            .bearer_auth(key)
            .send()
            .await
            .unwrap()
            .status()
    };
    let seller = make("seller", Scope::BookingsWrite).await;
    let operator = make("operator", Scope::Admin).await;
    eventually("the keys are known", async || ask(&operator).await == 200).await;
    assert_eq!(reqwest::get(&metrics).await.unwrap().status(), 401);
    assert_eq!(ask("tkt_1_no").await, 401);
    assert_eq!(ask(&seller).await, 403);
}

/// Such connections once used up all open files: jobs failed, and health checks got no answer.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_do_not_keep_a_worker_from_its_work() {
    let db = TestDatabase::new().await;
    let (_worker, metrics) = start_watched(&db, "127.0.0.1:0").await;
    let address = metrics
        .trim_start_matches("http://")
        .trim_end_matches("/metrics");
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let live = metrics.replace("/metrics", "/health/live");
    assert_eq!(reqwest::get(live).await.unwrap().status(), 200);
    let show = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &show, 2).await;
    let_pass(&db.pool, 200).await;
    eventually("the job is done", async || {
        available_seats(&db.pool, show.id).await == 10
    })
    .await;
}

/// Wrong keys must not cause database queries.
#[tokio::test]
async fn a_worker_asks_for_the_keys_once_a_second_and_not_for_each_request() {
    let db = TestDatabase::new().await;
    let (_worker, metrics) = start_watched(&db, "0.0.0.0:0").await;
    let client = reqwest::Client::new();
    let ask = async || {
        let request = client.get(&metrics).bearer_auth("tkt_1_no");
        request.send().await.unwrap().status()
    };
    eventually("the keys are known", async || ask().await == 401).await;
    let lookups = async || {
        execute(&db.pool, "SELECT pg_stat_force_next_flush()").await;
        let scans = "SELECT (seq_scan + idx_scan)::bigint FROM pg_stat_user_tables WHERE relname = 'api_keys'";
        sqlx::query_scalar::<_, i64>(scans)
            .fetch_one(&db.pool)
            .await
            .unwrap()
    };
    let (before, began) = (lookups().await, Instant::now());
    for _ in 0..500 {
        assert_eq!(ask().await, 401);
    }
    let allowed = 5 + 2 * began.elapsed().as_secs();
    let asked = lookups().await - before;
    assert!(asked.unsigned_abs() <= allowed, "{asked} of {allowed}");
}

#[tokio::test]
async fn sigterm_lets_the_job_in_hand_finish() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &show, 2).await;
    let_pass(&db.pool, 200).await;

    // The job waits for the show's row, which this test keeps locked.
    let mut blocker = db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM shows FOR UPDATE")
        .execute(&mut *blocker)
        .await
        .unwrap();
    let mut worker = start_worker(&db);
    until_one_waits_for_a_lock(&db.pool).await;
    terminate(&worker);
    assert!(worker.try_wait().unwrap().is_none(), "it is still running");
    blocker.rollback().await.unwrap();

    let status = worker.wait().await.unwrap();
    assert_eq!(status.code(), Some(0));
    let job: String = sqlx::query_scalar("SELECT status FROM apalis.jobs")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(job, "Done");
    assert_eq!(available_seats(&db.pool, show.id).await, 10);
}

#[tokio::test]
async fn several_workers_share_a_database() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 1000).await;
    for _ in 0..100 {
        a_hold(&db.pool, &show, 3).await;
    }
    let_pass(&db.pool, 200).await;
    let mut processes = [start_worker(&db), start_worker(&db)];
    eventually("all seats are back", async || {
        available_seats(&db.pool, show.id).await == 1000
    })
    .await;
    eventually("both workers have registered", async || {
        workers(&db.pool).await == 2
    })
    .await;
    assert_seats_conserved(&db.pool).await;
    for process in &mut processes {
        terminate(process);
        assert_eq!(process.wait().await.unwrap().code(), Some(0));
    }
}

/// Only the database's clock decides.
#[tokio::test]
async fn a_step_of_the_workers_clock_changes_no_decision() {
    let Some(clock) = SteppedClock::find() else {
        return;
    };
    let db = TestDatabase::new().await;
    let show = a_show_with_hold(&db.pool, 10, 2).await;
    clock.step("+2d");
    // The janitor leaves overdue holds alone, so that their jobs fail them.
    let command = || {
        let mut command = worker(&db);
        command.args(["--overdue-grace-seconds", "3600"]);
        clock.apply(&mut command);
        command
    };
    let mut ahead = command()
        .args(["--log-format", "json"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(ahead.stderr.take().unwrap()).lines();
    let line = log.next_line().await.unwrap().expect("a first log line");
    let line: Value = serde_json::from_str(&line).unwrap();
    let seen: DateTime<Utc> = line["timestamp"].as_str().unwrap().parse().unwrap();
    assert!((seen - now(&db.pool).await).num_hours() > 24, "{line}");

    for offset in ["+2d", "-2d"] {
        clock.step(offset);
        let hold = a_hold(&db.pool, &show, 3).await;
        eventually("the hold is failed", async || {
            stored_status(&db.pool, hold.id).await == "FAILED"
        })
        .await;
    }
    // A worker that starts with a clock that is behind.
    let _behind = command().stderr(Stdio::null()).spawn().unwrap();
    eventually("both workers have registered", async || {
        workers(&db.pool).await == 2
    })
    .await;
    let holds = [
        a_hold(&db.pool, &show, 3).await,
        a_hold(&db.pool, &show, 4).await,
    ];
    for hold in &holds {
        eventually("the hold is failed", async || {
            stored_status(&db.pool, hold.id).await == "FAILED"
        })
        .await;
    }
    let early = "SELECT count(*) FROM bookings WHERE resolved_at < expires_at";
    assert_eq!(count(&db.pool, early).await, 0);
    assert_seats_conserved(&db.pool).await;
}
