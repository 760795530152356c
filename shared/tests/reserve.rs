//! Reserving.

use std::{
    iter::Peekable,
    sync::{Arc, mpsc},
};

use chrono::{DateTime, Utc};
use shared::{
    batch::{Batch, Waiting},
    booking::{
        Booking, Refusal, cancel, confirm, expire, query,
        reserve::{self},
    },
    id::{BookingId, ShowId},
    jobs::ExpireBookings,
    show::NewShow,
};
use testing::{
    TestDatabase, a_hold, a_show, a_show_with_hold, assert_seats_conserved, available_seats,
    booked, change, count, create, eventually, job, let_pass, lock_show, now, request, reserve_in,
    reserve_one, reserve_with, stored_status, until_one_waits_for_a_lock,
};
use tokio::{sync::Barrier, task::JoinSet};

#[tokio::test(flavor = "multi_thread")]
async fn no_oversell_under_contention() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 50).await;
    let barrier = Arc::new(Barrier::new(200));
    let mut clients = JoinSet::new();
    for client in 0..200 {
        let (pool, barrier) = (db.pool.clone(), barrier.clone());
        clients.spawn(async move {
            barrier.wait().await;
            // 1, 2 or 3 seats: the single seats make sure that the last one is sold.
            reserve_one(&pool, show.id, 1 + client % 3).await
        });
    }
    let mut sold = 0;
    for answer in clients.join_all().await {
        match answer {
            Ok(booking) => sold += booking.number_of_seats,
            Err(Refusal::NotEnoughSeats {
                requested,
                available,
                ..
            }) => assert!(requested > available),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(sold, 50);
    assert_eq!(available_seats(&db.pool, show.id).await, 0);
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_over_several_shows_in_any_order_do_not_deadlock() {
    let db = TestDatabase::new().await;
    let (one, two) = (a_show(&db.pool, 1000).await, a_show(&db.pool, 1000).await);
    let mut clients = JoinSet::new();
    for client in 0..40 {
        let pool = db.pool.clone();
        let mut batch = vec![request(one.id, 1), request(two.id, 1)];
        if client % 2 == 0 {
            batch.reverse();
        }
        clients.spawn(async move {
            // In this transaction and not in `reserve`, which would hide a deadlock by a retry.
            let mut tx = pool.begin().await.unwrap();
            let answers = reserve_in(&mut tx, batch).await;
            tx.commit().await.unwrap();
            answers
        });
    }
    let answers = clients.join_all().await;
    assert!(answers.iter().flatten().all(Result::is_ok));
    assert_eq!(available_seats(&db.pool, one.id).await, 960);
    assert_eq!(available_seats(&db.pool, two.id).await, 960);
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test]
async fn each_request_of_a_batch_gets_its_own_answer_in_order() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 5).await;
    let batch = [
        request(show.id, 4),
        request(ShowId(show.id.0 + 1), 1),
        request(show.id, 2),
        request(show.id, 1),
    ];
    let answers = reserve::reserve(&mut db.session(), &mut Batch::of(batch))
        .await
        .unwrap();
    let answers = booked(answers);
    let first = answers[0].as_ref().unwrap();
    let last = answers[3].as_ref().unwrap();
    assert_eq!((first.number_of_seats, last.number_of_seats), (4, 1));
    assert!(first.id < last.id);
    assert_eq!(
        answers[1],
        Err(Refusal::ShowNotFound {
            show_id: ShowId(show.id.0 + 1)
        })
    );
    assert_eq!(
        answers[2],
        Err(Refusal::NotEnoughSeats {
            show_id: show.id,
            requested: 2,
            available: 1
        })
    );
    for booking in [first, last] {
        let found = query::find(&db.pool, booking.id, None).await.unwrap();
        assert_eq!(found.unwrap().as_of(booking.created_at), *booking,);
        assert_eq!((booking.expires_at - booking.created_at).num_seconds(), 120);
    }
    assert_seats_conserved(&db.pool).await;
}

/// Requests that wait for a batch.
struct Arrivals(Peekable<mpsc::IntoIter<reserve::Request>>);

impl Waiting<reserve::Request> for Arrivals {
    fn next_if(&mut self, fits: &dyn Fn(&reserve::Request) -> bool) -> Option<reserve::Request> {
        self.0.next_if(fits)
    }
}

/// Such requests need not wait for the next transaction; those for a show that is not locked do.
#[tokio::test]
async fn requests_for_a_locked_show_join_the_batch_that_locked_it() {
    let db = TestDatabase::new().await;
    let (one, two) = (a_show(&db.pool, 3).await, a_show(&db.pool, 3).await);
    let blocker = lock_show(&db.pool, one.id).await;
    let (arrive, arrivals) = mpsc::channel();
    let mut arrivals = Arrivals(arrivals.into_iter().peekable());
    let mut batch = Batch::joined_by(vec![request(one.id, 1)], &mut arrivals);
    let mut session = db.session();
    let (answers, ()) = tokio::join!(reserve::reserve(&mut session, &mut batch), async {
        until_one_waits_for_a_lock(&db.pool).await;
        for late in [
            request(one.id, 1),
            request(one.id, 2),
            request(two.id, 1),
            request(one.id, 1),
        ] {
            arrive.send(late).unwrap();
        }
        blocker.rollback().await.unwrap();
    });
    let answers: Vec<bool> = answers.unwrap().iter().map(Result::is_ok).collect();
    assert_eq!(answers, [true, true, false]);
    assert_eq!(available_seats(&db.pool, one.id).await, 1);
    assert_eq!(count(&db.pool, "SELECT count(*) FROM apalis.jobs").await, 1);
    assert_eq!(
        arrivals.0.next().unwrap().show_id,
        two.id,
        "no request overtakes it"
    );
    assert_seats_conserved(&db.pool).await;
}

/// A hold begins when its seats were taken, not when the request began to wait for them.
#[tokio::test]
async fn a_hold_is_as_long_as_promised_however_long_the_lock_took() {
    let db = TestDatabase::new().await;
    let (one, two) = (a_show(&db.pool, 10).await, a_show(&db.pool, 10).await);
    for (locked, wanted) in [(one.id, one.id), (two.id, two.id), (two.id, one.id)] {
        let blocker = lock_show(&db.pool, locked).await;
        // Both shows in one batch, so that each lock is waited for as the first and as the last.
        let mut batch = Batch::of([
            request(wanted, 1),
            request(ShowId(one.id.0 + two.id.0 - wanted.0), 1),
        ]);
        let mut session = db.session();
        let (answers, released_at) =
            tokio::join!(reserve::reserve(&mut session, &mut batch), async {
                until_one_waits_for_a_lock(&db.pool).await;
                let released_at = now(&db.pool).await;
                blocker.rollback().await.unwrap();
                released_at
            });
        for answer in booked(answers.unwrap()) {
            let booking = answer.unwrap();
            assert!(
                booking.created_at >= released_at,
                "{booking:?}, {released_at}"
            );
            assert_eq!((booking.expires_at - booking.created_at).num_seconds(), 120);
        }
    }
}

#[tokio::test]
async fn the_job_exists_if_and_only_if_the_booking_does() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let jobs = "SELECT count(*) FROM apalis.jobs";
    let bookings = "SELECT count(*) FROM bookings";

    let mut tx = db.pool.begin().await.unwrap();
    let answers = reserve_in(&mut tx, vec![request(show.id, 2)]).await;
    assert!(answers[0].is_ok());
    tx.rollback().await.unwrap();
    assert_eq!(count(&db.pool, bookings).await, 0);
    assert_eq!(count(&db.pool, jobs).await, 0);
    assert_eq!(available_seats(&db.pool, show.id).await, 10);

    // A refusal does not enqueue a job either.
    assert!(reserve_one(&db.pool, show.id, 11).await.is_err());
    assert_eq!(count(&db.pool, jobs).await, 0);

    // One job for the whole batch, due at the first deadline.
    let other = a_show_with_hold(&db.pool, 10, 60).await;
    let batch = [request(show.id, 2), request(other.id, 3)];
    let answers = reserve::reserve(&mut db.session(), &mut Batch::of(batch))
        .await
        .unwrap();
    let answers = booked(answers);
    let bookings: Vec<Booking> = answers.into_iter().map(Result::unwrap).collect();
    let (payload, run_at): (Vec<u8>, DateTime<Utc>) =
        sqlx::query_as("SELECT job, run_at FROM apalis.jobs")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    let job: ExpireBookings = serde_json::from_slice(&payload).unwrap();
    assert_eq!(job.booking_ids, [bookings[0].id, bookings[1].id]);
    assert_eq!(run_at, bookings[1].expires_at);
    assert!(run_at < bookings[0].expires_at);
    assert_eq!(count(&db.pool, jobs).await, 1);
}

#[tokio::test]
async fn overdue_holds_are_reclaimed_when_a_show_lacks_seats() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let stale: Vec<Booking> = vec![
        a_hold(&db.pool, &show, 4).await,
        a_hold(&db.pool, &show, 4).await,
    ];
    let sold = a_hold(&db.pool, &show, 2).await;
    confirm::confirm(&mut db.session(), &mut Batch::of([change(sold.id)]))
        .await
        .unwrap()[0]
        .as_ref()
        .unwrap();
    assert!(reserve_one(&db.pool, show.id, 1).await.is_err());

    // No worker runs; the deadlines pass.
    let_pass(&db.pool, 200).await;
    let booking = reserve_one(&db.pool, show.id, 8).await.unwrap();
    assert_eq!(booking.number_of_seats, 8);
    for hold in stale {
        assert_eq!(stored_status(&db.pool, hold.id).await, "FAILED");
    }
    assert_eq!(stored_status(&db.pool, sold.id).await, "CONFIRMED");
    assert_eq!(available_seats(&db.pool, show.id).await, 0);
    assert_seats_conserved(&db.pool).await;

    // Seats that are reclaimed for a request that is then refused are not lost.
    let_pass(&db.pool, 200).await;
    assert_eq!(
        reserve_one(&db.pool, show.id, 9).await,
        Err(Refusal::NotEnoughSeats {
            show_id: show.id,
            requested: 9,
            available: 8
        })
    );
    assert_eq!(available_seats(&db.pool, show.id).await, 8);
    assert_seats_conserved(&db.pool).await;
}

/// A counter that would leave its bounds fails loudly; it is never clamped.
#[tokio::test]
async fn drift_fails_the_transaction() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let hold = a_hold(&db.pool, &show, 3).await;
    // Simulates a defect that has already given the seats back.
    sqlx::query("UPDATE shows SET available_seats = seats")
        .execute(&db.pool)
        .await
        .unwrap();
    let error = cancel::cancel(&mut db.session(), &mut Batch::of([change(hold.id)]))
        .await
        .unwrap_err();
    assert!(
        matches!(error, shared::postgres::Error::RowCountMismatch { .. }),
        "{error:?}"
    );
    assert_eq!(stored_status(&db.pool, hold.id).await, "PENDING");

    let_pass(&db.pool, 125).await;
    let job = job(&[hold.id]);
    assert!(expire::expire(&mut db.session(), &job).await.is_err());
    assert_eq!(stored_status(&db.pool, hold.id).await, "PENDING");
    sqlx::query("DELETE FROM shows")
        .execute(&db.pool)
        .await
        .unwrap();
    assert!(expire::expire(&mut db.session(), &job).await.is_err());
    assert_eq!(stored_status(&db.pool, hold.id).await, "PENDING");
}

/// A plan that was made while a table was empty must not scan it when it has grown.
#[tokio::test]
async fn no_statement_scans_the_bookings() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 1000).await;
    let mut session = db.session();
    let scans = async || -> (i64, i64) {
        sqlx::query_as(
            "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'bookings'",
        )
        .fetch_one(&db.pool)
        .await
        .unwrap()
    };
    // Often enough that each statement has a cached plan.
    for _ in 0..10 {
        let batch = vec![request(show.id, 1); 3];
        let answers = reserve::reserve(&mut session, &mut Batch::of(batch))
            .await
            .unwrap();
        let answers = booked(answers);
        let ids: Vec<BookingId> = answers.into_iter().map(|a| a.unwrap().id).collect();
        confirm::confirm(&mut session, &mut Batch::of([change(ids[0])]))
            .await
            .unwrap();
        cancel::cancel(&mut session, &mut Batch::of([change(ids[1])]))
            .await
            .unwrap();
        expire::expire(&mut session, &job(&ids)).await.unwrap();
        let_pass(&db.pool, 500).await;
        expire::expire(&mut session, &job(&ids)).await.unwrap();
        expire::find_overdue_shows(&db.pool, chrono::TimeDelta::zero())
            .await
            .unwrap();
    }
    // A connection reports its counters when it has been idle for a moment.
    eventually("the scans are counted", async || scans().await.1 >= 100).await;
    assert_eq!(scans().await.0, 0);
}

#[tokio::test]
async fn a_user_has_no_more_seats_than_the_show_allows_whatever_became_of_earlier_ones() {
    let db = TestDatabase::new().await;
    let show = create(
        &db.pool,
        NewShow {
            max_seats_per_user: Some(4),
            ..NewShow::new("Premiere", DateTime::UNIX_EPOCH, 100)
        },
    )
    .await;
    let three = reserve_one(&db.pool, show.id, 3).await.unwrap();
    let refused = reserve_one(&db.pool, show.id, 2).await;
    assert_eq!(
        refused,
        Err(Refusal::UserLimitReached {
            show_id: show.id,
            requested: 2,
            max_seats_per_user: 4,
            taken: 3
        })
    );
    // Confirmed seats count as well as held ones; other users' seats don't.
    let mut session = db.session();
    let mut batch = Batch::of([change(three.id)]);
    confirm::confirm(&mut session, &mut batch).await.unwrap();
    assert!(reserve_one(&db.pool, show.id, 2).await.is_err());
    let bob = reserve::Request {
        user_name: "Bob".to_owned(),
        ..request(show.id, 4)
    };
    assert!(reserve_with(&mut session, bob).await.is_ok());
    // Seats of a cancelled booking, or of an overdue hold that no worker has reached, do not count.
    let mut batch = Batch::of([change(three.id)]);
    cancel::cancel(&mut session, &mut batch).await.unwrap();
    assert!(reserve_one(&db.pool, show.id, 4).await.is_ok());
    let_pass(&db.pool, 125).await;
    assert!(reserve_one(&db.pool, show.id, 4).await.is_ok());
    assert!(reserve_one(&db.pool, show.id, 1).await.is_err());
}

/// A worker has failed an overdue hold, but not yet freed its seats: the request that wants them
/// has locked the show.
#[tokio::test]
async fn who_lacks_a_seat_waits_for_one_that_is_just_being_given_back() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 2).await;
    let hold = a_hold(&db.pool, &show, 2).await;
    let_pass(&db.pool, 125).await;
    let mut expiring = db.pool.begin().await.unwrap();
    sqlx::query(
        "WITH counted AS (UPDATE batches SET held = 0, held_seats = 0, failed = 1, has_held = false, has_failed = true WHERE id = $1)
         UPDATE bookings SET status = 'FAILED', resolved_at = now() WHERE id = $1",
    )
    .bind(hold.id)
    .execute(&mut *expiring)
    .await
    .unwrap();
    let pool = db.pool.clone();
    let reserving = tokio::spawn(async move { reserve_one(&pool, show.id, 2).await });
    until_one_waits_for_a_lock(&db.pool).await;
    // The request waits without the show's lock.
    sqlx::query("UPDATE shows SET available_seats = available_seats + 2")
        .execute(&mut *expiring)
        .await
        .unwrap();
    expiring.commit().await.unwrap();
    assert!(reserving.await.unwrap().is_ok());
    assert_eq!(available_seats(&db.pool, show.id).await, 0);
    assert_seats_conserved(&db.pool).await;
}
