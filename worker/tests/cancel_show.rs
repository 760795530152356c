//! Cancelling a show, on a real queue.

use std::sync::Arc;

use shared::{
    batch::Batch,
    booking::{BookingStatus, cancel_show::cancel_bookings_of, confirm},
    postgres::{Database, Engine, Error, Session},
    show::change::{Change, Request, change},
};
use testing::{
    TestDatabase, a_hold, a_show, assert_seats_conserved, available_seats, count, eventually,
};
use tokio::task::JoinSet;

mod in_process;
use in_process::{CONFIG, Worker};

async fn cancel(db: &TestDatabase, show_id: shared::id::ShowId) {
    let request = Request {
        show_id,
        change: Change::Cancel,
        only_if: None,
    };
    let cancelled = change(&mut db.session(), request).await;
    cancelled.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_show_cancelled_while_confirms_run_ends_with_no_live_booking() {
    let db = Arc::new(TestDatabase::new().await);
    let show = a_show(&db.pool, 1000).await;
    let other = a_show(&db.pool, 10).await;
    a_hold(&db.pool, &other, 3).await;
    let mut holds = Vec::new();
    for _ in 0..100 {
        holds.push(a_hold(&db.pool, &show, 2).await.id);
    }
    let worker = Worker::start(&db.database, CONFIG);
    let mut confirms = JoinSet::new();
    for id in holds {
        let db = db.clone();
        confirms.spawn(async move {
            let mut batch = Batch::of([testing::change(id)]);
            let answers = confirm::confirm(&mut db.session(), &mut batch).await;
            answers.unwrap().remove(0)
        });
    }
    cancel(&db, show.id).await;
    // Every client is told: its booking was sold, and is cancelled later, or is cancelled already.
    for answer in confirms.join_all().await {
        match answer {
            Ok(booking) => assert_eq!(booking.status, BookingStatus::Confirmed),
            Err(refusal) => assert!(refusal.to_string().contains("is cancelled"), "{refusal}"),
        }
    }
    eventually("all bookings are cancelled", async || {
        available_seats(&db.pool, show.id).await == 1000
    })
    .await;
    eventually("the job is done", async || {
        let done =
            "SELECT count(*) FROM apalis.jobs WHERE job_type = 'cancel-show' AND status = 'Done'";
        count(&db.pool, done).await == 1
    })
    .await;
    let cancelled = "SELECT count(*) FROM bookings WHERE status = 'CANCELLED'";
    assert_eq!(count(&db.pool, cancelled).await, 100);
    assert_eq!(available_seats(&db.pool, other.id).await, 7);
    assert_seats_conserved(&db.pool).await;
    worker.stop().await;
}

/// A booking that another transaction keeps locked delays no other booking.
#[tokio::test]
async fn a_locked_booking_is_cancelled_last() {
    // In one statement, and in the transaction that Citus needs.
    for engine in [Engine::Postgres, Engine::Citus] {
        cancel_with_a_locked_booking(engine).await;
    }
}

async fn cancel_with_a_locked_booking(engine: Engine) {
    let db = TestDatabase::new().await;
    let database = Database {
        engine,
        ..db.database.clone()
    };
    let session = || Session::new(&database);
    let show = a_show(&db.pool, 10).await;
    let locked = a_hold(&db.pool, &show, 2).await;
    a_hold(&db.pool, &show, 3).await;
    cancel(&db, show.id).await;
    let mut other = db.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM bookings WHERE id = $1 FOR UPDATE")
        .bind(locked.id)
        .execute(&mut *other)
        .await
        .unwrap();
    let result = cancel_bookings_of(&mut session(), show.id).await;
    assert!(matches!(result, Err(Error::Locked(_))), "{result:?}");
    assert_eq!(available_seats(&db.pool, show.id).await, 8);
    other.rollback().await.unwrap();
    let done = cancel_bookings_of(&mut session(), show.id).await;
    assert_eq!(done.unwrap().ended, 1);
    assert_eq!(available_seats(&db.pool, show.id).await, 10);
    assert_seats_conserved(&db.pool).await;
}
