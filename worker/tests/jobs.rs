//! Jobs on a real queue: apalis, PostgreSQL, and workers that share it.

use shared::{
    batch::Batch,
    booking::{Booking, confirm, expire},
    http::callers::CallerArgs,
    id::BookingId,
    jobs::ExpireBookings,
};
use sqlx::PgPool;
use testing::{
    self, TestDatabase, a_hold, a_show, a_show_with_hold, assert_seats_conserved, available_seats,
    change, eventually, let_pass, lock_show, stored_status,
};
use tokio_util::sync::CancellationToken;
use worker::{
    config::Config, janitor, jobs::expire_bookings::ExpireBookingsHandler, supervise::JobError,
};

mod in_process;
use in_process::{CONFIG, Worker};

fn job(bookings: &[&Booking]) -> ExpireBookings {
    testing::job(&bookings.iter().map(|b| b.id).collect::<Vec<_>>())
}

async fn jobs_in(pool: &PgPool, status: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM apalis.jobs WHERE status = $1")
        .bind(status)
        .fetch_one(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_handler_run_late_and_twice_expires_once() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let hold = a_hold(&db.pool, &show, 3).await;
    let_pass(&db.pool, 500).await;
    let jobs = ExpireBookingsHandler::default();
    for _ in 0..2 {
        jobs.run(&db.database, job(&[&hold])).await.unwrap();
        assert_eq!(stored_status(&db.pool, hold.id).await, "FAILED");
        assert_eq!(available_seats(&db.pool, show.id).await, 10);
    }
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test]
async fn the_handler_run_early_expires_what_is_due_and_waits_for_the_rest() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let due = a_hold(&db.pool, &show, 3).await;
    let_pass(&db.pool, 500).await;
    let held = a_hold(&db.pool, &show, 4).await;

    let result = ExpireBookingsHandler::default()
        .run(&db.database, job(&[&held, &due]))
        .await;
    let Err(JobError::Snooze(until)) = result else {
        panic!("{result:?}");
    };
    assert_eq!(until, held.expires_at);
    assert_eq!(stored_status(&db.pool, due.id).await, "FAILED");
    assert_eq!(stored_status(&db.pool, held.id).await, "PENDING");
    assert_eq!(available_seats(&db.pool, show.id).await, 6);
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test]
async fn the_handler_leaves_unknown_and_confirmed_bookings_alone() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let sold = a_hold(&db.pool, &show, 3).await;
    confirm::confirm(&mut db.session(), &mut Batch::of([change(sold.id)]))
        .await
        .unwrap()[0]
        .as_ref()
        .unwrap();
    let_pass(&db.pool, 500).await;
    let mut job = job(&[&sold]);
    job.booking_ids.push(BookingId(sold.id.0 + 1000));
    ExpireBookingsHandler::default()
        .run(&db.database, job)
        .await
        .unwrap();
    assert_eq!(stored_status(&db.pool, sold.id).await, "CONFIRMED");
    assert_eq!(available_seats(&db.pool, show.id).await, 7);
    assert_seats_conserved(&db.pool).await;
}

/// In a big sale most jobs are of this kind.
#[tokio::test]
async fn a_job_whose_holds_failed_ahead_of_it_asks_nothing() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let holds = [
        a_hold(&db.pool, &show, 1).await,
        a_hold(&db.pool, &show, 2).await,
        a_hold(&db.pool, &show, 3).await,
    ];
    let_pass(&db.pool, 125).await;
    let of_show = |holds: &[&Booking]| ExpireBookings {
        show_id: Some(show.id),
        ..job(holds)
    };
    let jobs = ExpireBookingsHandler::default();
    jobs.run(&db.database, of_show(&[&holds[0]])).await.unwrap();
    assert_eq!(available_seats(&db.pool, show.id).await, 10);
    db.database.pool.close().await;
    let others = of_show(&[&holds[1], &holds[2]]);
    jobs.run(&db.database, others.clone()).await.unwrap();
    // That was remembered for one run only. A job that is run again by hand queries the database.
    let result = jobs.run(&db.database, others).await;
    assert!(matches!(result, Err(JobError::Retry(_))), "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_have_each_jobs_effect_exactly_once() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 1000).await;
    for _ in 0..200 {
        a_hold(&db.pool, &show, 2).await;
    }
    let sold = a_hold(&db.pool, &show, 5).await;
    confirm::confirm(&mut db.session(), &mut Batch::of([change(sold.id)]))
        .await
        .unwrap()[0]
        .as_ref()
        .unwrap();
    let_pass(&db.pool, 200).await;
    let note_who_is_taken = "
        CREATE TABLE taken (id text, status_before text);
        CREATE FUNCTION note_taken() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO taken VALUES (OLD.id, OLD.status);
            RETURN NULL;
        END $$;
        CREATE TRIGGER note_taken AFTER UPDATE ON apalis.jobs FOR EACH ROW
            WHEN (NEW.status = 'Queued') EXECUTE FUNCTION note_taken();";
    sqlx::raw_sql(note_who_is_taken)
        .execute(&db.pool)
        .await
        .unwrap();

    // While this test keeps the show locked, no job can finish, so each worker reaches its
    // concurrency. The workers share this test's pool and must leave some of its connections.
    let config = Config {
        concurrency: 4,
        ..CONFIG
    };
    let mut blocker = db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM shows FOR UPDATE")
        .execute(&mut *blocker)
        .await
        .unwrap();
    let workers = [
        Worker::start(&db.database, config.clone()),
        Worker::start(&db.database, config),
    ];
    eventually("both workers have jobs in flight", async || {
        sqlx::query_scalar("SELECT count(DISTINCT lock_by) = 2 FROM apalis.jobs")
            .fetch_one(&db.pool)
            .await
            .unwrap()
    })
    .await;
    blocker.rollback().await.unwrap();
    eventually("every job is done", async || {
        jobs_in(&db.pool, "Done").await == 201
    })
    .await;
    for worker in workers {
        worker.stop().await;
    }
    // Jobs that found the show locked may have been put back, and taken again.
    let taken: (i64, i64) = sqlx::query_as(
        "SELECT count(DISTINCT id), count(*) FILTER (WHERE status_before NOT IN ('Pending', 'Failed')) FROM taken",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    assert_eq!(taken, (201, 0), "no job was taken twice at once");
    assert_eq!(available_seats(&db.pool, show.id).await, 995);
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_expire_by_themselves_and_never_before_their_deadline() {
    let db = TestDatabase::new().await;
    let show = a_show_with_hold(&db.pool, 100, 1).await;
    let worker = Worker::start(&db.database, CONFIG);
    for _ in 0..100 {
        a_hold(&db.pool, &show, 1).await;
    }
    eventually("all seats are back", async || {
        available_seats(&db.pool, show.id).await == 100
    })
    .await;
    worker.stop().await;
    let early: i64 =
        sqlx::query_scalar("SELECT count(*) FROM bookings WHERE resolved_at < expires_at")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert_eq!(early, 0);
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_comes_too_early_is_put_back_until_the_deadline() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let hold = a_hold(&db.pool, &show, 1).await;
    sqlx::query("UPDATE apalis.jobs SET run_at = now()")
        .execute(&db.pool)
        .await
        .unwrap();
    let worker = Worker::start(&db.database, CONFIG);
    eventually("the job is put back", async || {
        sqlx::query_scalar("SELECT status = 'Pending' AND attempts = 1 FROM apalis.jobs")
            .fetch_one(&db.pool)
            .await
            .unwrap()
    })
    .await;
    assert_eq!(stored_status(&db.pool, hold.id).await, "PENDING");
    let_pass(&db.pool, 125).await;
    eventually("the hold has expired", async || {
        stored_status(&db.pool, hold.id).await == "FAILED"
    })
    .await;
    eventually("the job is done", async || {
        jobs_in(&db.pool, "Done").await == 1
    })
    .await;
    worker.stop().await;
    let (attempts, left): (i32, i32) =
        sqlx::query_as("SELECT attempts, max_attempts - attempts FROM apalis.jobs")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert_eq!(
        attempts, 2,
        "one early run, one run in time, and none in between"
    );
    assert_eq!(left, 11, "an early run uses up no attempt");
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_does_not_decode_is_dead_and_the_queue_goes_on() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &show, 1).await;
    sqlx::query("UPDATE apalis.jobs SET job = '{\"bookings\": 1}'")
        .execute(&db.pool)
        .await
        .unwrap();
    a_hold(&db.pool, &show, 1).await;
    let_pass(&db.pool, 500).await;
    let worker = Worker::start(&db.database, CONFIG);
    eventually("both jobs are finished", async || {
        jobs_in(&db.pool, "Killed").await == 1 && jobs_in(&db.pool, "Done").await == 1
    })
    .await;
    worker.stop().await;
    let result: serde_json::Value =
        sqlx::query_scalar("SELECT last_result FROM apalis.jobs WHERE status = 'Killed'")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert!(result.to_string().contains("does not decode"), "{result}");
}

#[tokio::test]
async fn the_sweep_returns_seats_whose_job_was_lost() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 2000).await;
    for _ in 0..600 {
        a_hold(&db.pool, &show, 1).await;
    }
    sqlx::query("DELETE FROM apalis.jobs")
        .execute(&db.pool)
        .await
        .unwrap();
    let_pass(&db.pool, 125).await;
    let fresh = a_hold(&db.pool, &show, 1).await;
    assert_eq!(available_seats(&db.pool, show.id).await, 1399);

    let grace = chrono::TimeDelta::seconds;
    assert_eq!(
        janitor::sweep(&db.database, grace(60)).await.unwrap(),
        0,
        "their jobs may still run"
    );
    assert_eq!(janitor::sweep(&db.database, grace(0)).await.unwrap(), 600);
    assert_eq!(janitor::sweep(&db.database, grace(0)).await.unwrap(), 0);
    assert_eq!(stored_status(&db.pool, fresh.id).await, "PENDING");
    assert_eq!(available_seats(&db.pool, show.id).await, 1999);
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test]
async fn a_show_that_somebody_keeps_locked_does_not_keep_others_from_the_sweep() {
    let db = TestDatabase::new().await;
    let (locked, other) = (a_show(&db.pool, 10).await, a_show(&db.pool, 10).await);
    let held = a_hold(&db.pool, &locked, 1).await;
    a_hold(&db.pool, &other, 2).await;
    let_pass(&db.pool, 125).await;
    let _blocker = lock_show(&db.pool, locked.id).await;
    let swept = janitor::sweep(&db.database, chrono::TimeDelta::zero()).await;
    assert_eq!(swept.unwrap(), 1);
    assert_eq!(available_seats(&db.pool, other.id).await, 10);
    assert_eq!(stored_status(&db.pool, held.id).await, "PENDING");
}

/// Not even the holds of other shows in the same job.
#[tokio::test]
async fn a_show_that_somebody_keeps_locked_keeps_its_own_holds_only() {
    let db = TestDatabase::new().await;
    let (locked, other) = (a_show(&db.pool, 10).await, a_show(&db.pool, 10).await);
    let held = a_hold(&db.pool, &locked, 1).await;
    let free = a_hold(&db.pool, &other, 2).await;
    let_pass(&db.pool, 125).await;
    let blocker = lock_show(&db.pool, locked.id).await;
    let jobs = ExpireBookingsHandler::default();
    let run = async || jobs.run(&db.database, job(&[&held, &free])).await;
    let result = run().await;
    assert!(matches!(result, Err(JobError::Retry(_))), "{result:?}");
    assert_eq!(available_seats(&db.pool, other.id).await, 10);
    assert_eq!(stored_status(&db.pool, held.id).await, "PENDING");
    blocker.rollback().await.unwrap();
    run().await.unwrap();
    assert_eq!(available_seats(&db.pool, locked.id).await, 10);
    assert_seats_conserved(&db.pool).await;
}

/// The show, which other transactions wait for, is not kept locked meanwhile.
#[tokio::test]
async fn a_booking_that_somebody_keeps_locked_stays_for_the_next_time() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let kept = a_hold(&db.pool, &show, 1).await;
    let free = a_hold(&db.pool, &show, 2).await;
    let_pass(&db.pool, 125).await;
    let mut blocker = db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM bookings WHERE id = $1 FOR UPDATE")
        .bind(kept.id)
        .execute(&mut *blocker)
        .await
        .unwrap();
    let jobs = ExpireBookingsHandler::default();
    let run = async || jobs.run(&db.database, job(&[&kept, &free])).await;
    let before = testing::now(&db.pool).await;
    let result = run().await;
    assert!(
        matches!(result, Err(JobError::Snooze(until)) if until > before),
        "{result:?}"
    );
    assert_eq!(available_seats(&db.pool, show.id).await, 9);
    blocker.rollback().await.unwrap();
    run().await.unwrap();
    assert_eq!(available_seats(&db.pool, show.id).await, 10);
    assert_seats_conserved(&db.pool).await;
}

/// More jobs need the show than a worker runs at the same time.
///
/// The lock is kept until the other show's job is done.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_locked_show_leave_their_places_to_others() {
    let db = TestDatabase::new().await;
    let (locked, other) = (a_show(&db.pool, 100).await, a_show(&db.pool, 10).await);
    for _ in 0..60 {
        a_hold(&db.pool, &locked, 1).await;
    }
    a_hold(&db.pool, &other, 1).await;
    let_pass(&db.pool, 125).await;
    let blocker = lock_show(&db.pool, locked.id).await;
    let worker = Worker::start(&db.database, CONFIG);
    eventually("the other show's seat is back", async || {
        available_seats(&db.pool, other.id).await == 10
    })
    .await;
    blocker.rollback().await.unwrap();
    eventually("the locked show's seats are back", async || {
        available_seats(&db.pool, locked.id).await == 100
    })
    .await;
    worker.stop().await;
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_sweeps_by_itself() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &show, 1).await;
    sqlx::query("DELETE FROM apalis.jobs")
        .execute(&db.pool)
        .await
        .unwrap();
    let_pass(&db.pool, 500).await;
    let config = Config {
        janitor_seconds: 1,
        overdue_grace_seconds: 1,
        ..CONFIG
    };
    let worker = Worker::start(&db.database, config);
    eventually("the seat is back", async || {
        available_seats(&db.pool, show.id).await == 10
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn expiring_nothing_is_no_error() {
    let db = TestDatabase::new().await;
    let outcome = expire::expire(&mut db.session(), &job(&[])).await.unwrap();
    assert_eq!((outcome.expired.len(), outcome.next_deadline), (0, None));
}

#[tokio::test]
async fn a_worker_with_too_few_connections_says_so_at_once() {
    let db = TestDatabase::new().await;
    let config = Config {
        concurrency: 200,
        ..CONFIG
    };
    let callers = CallerArgs::default();
    let error = worker::run(
        db.database.clone(),
        &config,
        &callers,
        CancellationToken::new(),
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("202 connections"), "{error}");
}
