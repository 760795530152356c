//! The real `worker` binary.

use std::process::Stdio;

use chrono::{DateTime, Utc};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use shared::testing::{
    SteppedClock, TestDatabase, a_hold, a_show, a_show_with_hold, assert_seats_conserved,
    available_seats, eventually, let_pass, now, stored_status, until_one_waits_for_a_lock,
};
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
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
    sqlx::query_scalar("SELECT count(*) FROM apalis.workers")
        .fetch_one(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn sigterm_lets_the_job_in_hand_finish() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &show, 2).await;
    let_pass(&db.pool, 200).await;

    // The job waits for the show's row, which is ours.
    let mut blocker = db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM shows FOR UPDATE")
        .execute(&mut *blocker)
        .await
        .unwrap();
    let mut worker = start_worker(&db);
    until_one_waits_for_a_lock(&db.pool).await;
    terminate(&worker);
    assert!(worker.try_wait().unwrap().is_none(), "it is still at work");
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
    eventually("both have registered", async || {
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
    let mut command = worker(&db);
    clock.apply(&mut command);
    let mut ahead = command
        .args(["--log-format", "json"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(ahead.stderr.take().unwrap()).lines();
    let line = log.next_line().await.unwrap().expect("it says something");
    let line: Value = serde_json::from_str(&line).unwrap();
    let seen: DateTime<Utc> = line["timestamp"].as_str().unwrap().parse().unwrap();
    assert!((seen - now(&db.pool).await).num_hours() > 24, "{line}");

    for offset in ["+2d", "-2d"] {
        clock.step(offset);
        let hold = a_hold(&db.pool, &show, 3).await;
        eventually("it is failed", async || {
            stored_status(&db.pool, hold.id).await == "FAILED"
        })
        .await;
    }
    // And one that starts with a clock that is behind.
    let mut command = worker(&db);
    clock.apply(&mut command);
    let _behind = command.stderr(Stdio::null()).spawn().unwrap();
    eventually("both have registered", async || {
        workers(&db.pool).await == 2
    })
    .await;
    let holds = [
        a_hold(&db.pool, &show, 3).await,
        a_hold(&db.pool, &show, 4).await,
    ];
    for hold in &holds {
        eventually("it is failed", async || {
            stored_status(&db.pool, hold.id).await == "FAILED"
        })
        .await;
    }
    let late: Vec<f64> = sqlx::query_scalar(
        "SELECT extract(epoch FROM resolved_at - expires_at)::float8 FROM bookings",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    // The janitor comes by after 10 s at the earliest: it was their jobs.
    assert!(
        late.iter().all(|late| (0.0..10.0).contains(late)),
        "{late:?}"
    );
    assert_seats_conserved(&db.pool).await;
}
