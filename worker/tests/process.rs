//! The real `worker` binary.

use std::process::Stdio;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use shared::testing::{
    TestDatabase, a_hold, a_show, assert_seats_conserved, available_seats, eventually, let_pass,
    until_one_waits_for_a_lock,
};
use sqlx::PgPool;
use tokio::process::{Child, Command};

fn start_worker(db: &TestDatabase) -> Child {
    Command::new(env!("CARGO_BIN_EXE_worker"))
        .env("DATABASE_URL", &db.url)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
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
