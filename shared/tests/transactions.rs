//! Tests of the transactions on a real PostgreSQL, raced against each other.

use std::{
    iter::Peekable,
    sync::{Arc, mpsc},
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use shared::{
    batch::{Batch, Waiting},
    booking::{
        Booking, BookingStatus, Change, Refusal, cancel, confirm, expire, extend, query,
        reserve::{self, Outcome, Reserve},
    },
    id::{BookingId, ShowId},
    idempotency::{Claim, Key},
    jobs::ExpireBookings,
    postgres::{Engine, Session, Work},
    show::{self, Creation, NewShow},
};
use sqlx::{AssertSqlSafe, PgPool};
use testing::{
    TestDatabase, a_hold, a_show, a_show_with_hold, assert_seats_conserved, available_seats,
    change, connect, count, create, direct, eventually, job, let_pass, lock_show, now,
    stored_status, things, until_one_waits_for_a_lock,
};
use tokio::{sync::Barrier, task::JoinSet};

fn request(show_id: ShowId, number_of_seats: i32) -> reserve::Request {
    reserve::Request {
        show_id,
        user_name: "Alice".to_owned(),
        number_of_seats,
        claim: None,
    }
}

async fn reserve_one(pool: &PgPool, show_id: ShowId, seats: i32) -> Result<Booking, Refusal> {
    let answers = reserve::reserve(
        &mut Session::new(&direct(pool)),
        &mut Batch::of([request(show_id, seats)]),
    )
    .await
    .unwrap();
    things(answers).remove(0)
}

/// Reserves in this transaction, without retries.
async fn reserve_in(
    tx: &mut sqlx::PgConnection,
    batch: Vec<reserve::Request>,
) -> Vec<Result<Booking, Refusal>> {
    let mut reserve = Reserve {
        batch: &mut Batch::of(batch),
        engine: Engine::Postgres,
        waits: 0,
    };
    let Outcome::Answered(answers) = reserve.run(tx).await.unwrap() else {
        panic!("reserving without waits must answer");
    };
    things(answers)
}

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
    let answers = things(answers);
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

/// Action that can happen to a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Confirm,
    Cancel,
    Expire,
}

impl Act {
    /// Runs the action. Returns whether it resolved the booking, or repeated the action that did.
    async fn run(self, pool: &PgPool, booking_id: BookingId) -> bool {
        match self {
            Self::Confirm => confirm::confirm(
                &mut Session::new(&direct(pool)),
                &mut Batch::of([change(booking_id)]),
            )
            .await
            .unwrap()[0]
                .is_ok(),
            Self::Cancel => cancel::cancel(
                &mut Session::new(&direct(pool)),
                &mut Batch::of([change(booking_id)]),
            )
            .await
            .unwrap()[0]
                .is_ok(),
            Self::Expire => {
                expire::expire(&mut Session::new(&direct(pool)), &job(&[booking_id]))
                    .await
                    .unwrap()
                    .expired
                    .len()
                    == 1
            }
        }
    }
}

/// Races two actions on many holds whose deadline is just passing.
///
/// Returns each booking, with whether each action won.
async fn race(acts: [Act; 2]) -> (PgPool, Vec<(Booking, [bool; 2])>) {
    let db = TestDatabase::new().await;
    let mut races = Vec::new();
    for round in 0..36 {
        // A show of its own, because expiring takes all overdue holds of a show.
        let show = a_show(&db.pool, 10).await;
        let hold = a_hold(&db.pool, &show, 2).await;
        // The deadline comes 0 to 5 ms from now, in the middle of the race.
        sqlx::query(
            "UPDATE bookings SET expires_at = clock_timestamp() + make_interval(secs => $2 * 0.001),
                                 created_at = clock_timestamp() - interval '1 minute'
             WHERE id = $1",
        )
        .bind(hold.id)
        .bind(f64::from(round % 6))
        .execute(&db.pool)
        .await
        .unwrap();
        let barrier = Barrier::new(2);
        let act = async |act: Act| {
            barrier.wait().await;
            act.run(&db.pool, hold.id).await
        };
        let (first, second) = tokio::join!(act(acts[0]), act(acts[1]));
        let booking = query::find(&db.pool, hold.id, None).await.unwrap().unwrap();
        races.push((booking, [first, second]));
        assert_seats_conserved(&db.pool).await;
    }
    (db.pool, races)
}

/// After a race at most one of two different actions succeeded, and the row shows which.
#[tokio::test]
async fn a_booking_resolves_once() {
    for acts in [
        [Act::Confirm, Act::Expire],
        [Act::Expire, Act::Confirm],
        [Act::Cancel, Act::Expire],
        [Act::Expire, Act::Cancel],
    ] {
        let (pool, races) = race(acts).await;
        for (booking, won) in races {
            // Neither wins when expire comes just before the deadline and the other just after it.
            assert!(won != [true, true], "{acts:?}: {booking:?}");
            let stored = stored_status(&pool, booking.id).await;
            let expected = match (won[0], won[1]) {
                (true, _) => Some(acts[0]),
                (_, true) => Some(acts[1]),
                _ => None,
            };
            let expected = match expected {
                Some(Act::Confirm) => "CONFIRMED",
                Some(Act::Cancel) => "CANCELLED",
                Some(Act::Expire) => "FAILED",
                None => "PENDING",
            };
            assert_eq!(stored, expected, "{acts:?}: {booking:?}");
        }
    }
}

#[tokio::test]
async fn seats_come_back_once_when_two_expire_the_same_booking() {
    let (pool, races) = race([Act::Expire, Act::Expire]).await;
    for (booking, won) in races {
        assert!(won != [true, true], "{booking:?}");
    }
    assert_seats_conserved(&pool).await;
}

/// Confirming and cancelling can both succeed, but only in this order.
#[tokio::test]
async fn confirm_and_cancel_end_in_one_state() {
    let (pool, races) = race([Act::Confirm, Act::Cancel]).await;
    for (booking, [confirmed, cancelled]) in races {
        let stored = stored_status(&pool, booking.id).await;
        let expected = match (confirmed, cancelled) {
            (_, true) => "CANCELLED",
            (true, false) => "CONFIRMED",
            (false, false) => "PENDING",
        };
        assert_eq!(stored, expected, "{booking:?}");
    }
}

/// The clock is read after the lock: a confirmation that waited for the row past the deadline is
/// refused.
#[tokio::test]
async fn time_spent_waiting_for_a_lock_counts() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let hold = a_hold(&db.pool, &show, 1).await;
    sqlx::query(
        "UPDATE bookings SET expires_at = clock_timestamp() + interval '300 ms' WHERE id = $1",
    )
    .bind(hold.id)
    .execute(&db.pool)
    .await
    .unwrap();

    let mut blocker = db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM bookings WHERE id = $1 FOR UPDATE")
        .bind(hold.id)
        .execute(&mut *blocker)
        .await
        .unwrap();
    let mut batch = Batch::of([change(hold.id)]);
    let mut session = db.session();
    let (answers, ()) = tokio::join!(confirm::confirm(&mut session, &mut batch), async {
        // Until the deadline has passed, on the clock that decides.
        sqlx::query("SELECT pg_sleep_until(expires_at) FROM bookings WHERE id = $1")
            .bind(hold.id)
            .execute(&db.pool)
            .await
            .unwrap();
        blocker.rollback().await.unwrap();
    });
    assert!(matches!(
        answers.unwrap()[0],
        Err(Refusal::HoldExpired { .. })
    ));
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
        for answer in things(answers.unwrap()) {
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
    let answers = things(answers);
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

#[tokio::test]
async fn cancelling_gives_the_seats_back_once() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let (held, sold) = (
        a_hold(&db.pool, &show, 3).await,
        a_hold(&db.pool, &show, 4).await,
    );
    confirm::confirm(&mut db.session(), &mut Batch::of([change(sold.id)]))
        .await
        .unwrap()[0]
        .as_ref()
        .unwrap();
    // Twice in one batch, and once more.
    let answers = cancel::cancel(
        &mut db.session(),
        &mut Batch::of([change(held.id), change(sold.id), change(held.id)]),
    )
    .await
    .unwrap();
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(available_seats(&db.pool, show.id).await, 10);
    let again = cancel::cancel(&mut db.session(), &mut Batch::of([change(sold.id)]))
        .await
        .unwrap();
    assert_eq!(again[0].as_ref().unwrap().status, BookingStatus::Cancelled);
    assert_eq!(available_seats(&db.pool, show.id).await, 10);
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test]
async fn readers_see_an_overdue_hold_as_failed() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let stale = a_hold(&db.pool, &show, 1).await;
    let_pass(&db.pool, 200).await;
    let fresh = a_hold(&db.pool, &show, 1).await;
    assert_eq!(stored_status(&db.pool, stale.id).await, "PENDING");

    let found = query::find(&db.pool, stale.id, None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.status, BookingStatus::Failed);
    assert_eq!(found.resolved_at, Some(found.expires_at));

    for (status, expected) in [
        (BookingStatus::Failed, stale.id),
        (BookingStatus::Pending, fresh.id),
    ] {
        let filter = query::Filter {
            status: Some(status),
            ..query::Filter::default()
        };
        let listed = query::list(&db.pool, &filter, None, 10).await.unwrap();
        let ids: Vec<BookingId> = listed.iter().map(|b| b.id).collect();
        assert_eq!(ids, [expected]);
        assert_eq!(listed[0].status, status);
    }
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

/// In a big sale hundreds of jobs are due at once: one does the work of all, and the rest need not
/// wait.
#[tokio::test]
async fn one_job_expires_all_overdue_holds_of_its_show_and_the_next_locks_nothing() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let other_show = a_show(&db.pool, 10).await;
    let (mine, another) = (
        a_hold(&db.pool, &show, 1).await,
        a_hold(&db.pool, &show, 2).await,
    );
    let elsewhere = a_hold(&db.pool, &other_show, 3).await;
    let_pass(&db.pool, 125).await;
    let later = a_hold(&db.pool, &show, 4).await;

    let mut session = db.session();
    let outcome = expire::expire(&mut session, &job(&[mine.id]))
        .await
        .unwrap();
    assert_eq!((outcome.expired.len(), outcome.next_deadline), (2, None));
    assert_eq!(stored_status(&db.pool, another.id).await, "FAILED");
    assert_eq!(stored_status(&db.pool, elsewhere.id).await, "PENDING");
    assert_eq!(stored_status(&db.pool, later.id).await, "PENDING");
    assert_eq!(available_seats(&db.pool, show.id).await, 6);

    let mut lock = db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM shows FOR UPDATE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let outcome = expire::expire(&mut session, &job(&[another.id]))
        .await
        .unwrap();
    assert_eq!(outcome.expired.len(), 0, "it waited for no lock");
    lock.rollback().await.unwrap();

    let outcome = expire::expire(&mut session, &job(&[later.id]))
        .await
        .unwrap();
    let deadline = query::find(&db.pool, later.id, None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(outcome.next_deadline, Some(deadline.expires_at));
    assert_seats_conserved(&db.pool).await;
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
        let answers = things(answers);
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

/// A job is short however many holds are overdue, and expires its own: other jobs or a sweep do the
/// rest.
#[tokio::test]
async fn a_job_expires_its_own_holds_and_a_thousand_others_and_a_sweep_all() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 2500).await;
    let mut session = db.session();
    let batch = vec![request(show.id, 1); 2100];
    let answers = reserve::reserve(&mut session, &mut Batch::of(batch))
        .await
        .unwrap();
    let answers = things(answers);
    let newest = answers[2099].as_ref().unwrap().id;
    let_pass(&db.pool, 125).await;
    let outcome = expire::expire(&mut session, &job(&[newest])).await.unwrap();
    assert!(
        (1000..=1001).contains(&outcome.expired.len()),
        "{outcome:?}"
    );
    assert_eq!(outcome.next_deadline, None);
    assert_eq!(stored_status(&db.pool, newest).await, "FAILED");
    let expired = i32::try_from(outcome.expired.len()).unwrap();
    assert_eq!(available_seats(&db.pool, show.id).await, 400 + expired);
    let swept = expire::sweep(&mut session, show.id, TimeDelta::zero()).await;
    assert_eq!(swept.unwrap(), 2100 - outcome.expired.len());
    assert_eq!(available_seats(&db.pool, show.id).await, 2500);
    assert_seats_conserved(&db.pool).await;
}

fn keyed(owner: i64, key: &str, request: reserve::Request) -> reserve::Request {
    let what = (request.show_id, &request.user_name, request.number_of_seats);
    let text = key.to_owned();
    let claim = Claim::new(Key { owner, text }, "reserve", &what);
    reserve::Request {
        claim: Some(claim),
        ..request
    }
}

async fn reserve_with(session: &mut Session, request: reserve::Request) -> reserve::Answer {
    let answers = reserve::reserve(session, &mut Batch::of([request])).await;
    answers.unwrap().remove(0)
}

#[tokio::test]
async fn a_repeated_request_gets_the_booking_that_the_first_one_made_as_it_is_now() {
    let db = TestDatabase::new().await;
    let (show, other) = (a_show(&db.pool, 10).await, a_show(&db.pool, 10).await);
    let mut session = db.session();
    let first = keyed(0, "k", request(show.id, 2));
    let made = reserve_with(&mut session, first.clone()).await.unwrap();
    assert!(!made.is_replay);

    let again = reserve_with(&mut session, first.clone()).await.unwrap();
    assert!(again.is_replay);
    assert_eq!(again.resource.id, made.resource.id);
    let mut batch = Batch::of([change(made.resource.id)]);
    confirm::confirm(&mut session, &mut batch).await.unwrap();
    let again = reserve_with(&mut session, first.clone()).await.unwrap();
    assert_eq!(again.resource.status, BookingStatus::Confirmed);

    for other_request in [
        request(show.id, 3),
        request(other.id, 2),
        request(ShowId(-1), 2),
    ] {
        let refused = reserve_with(&mut session, keyed(0, "k", other_request)).await;
        assert_eq!(refused, Err(Refusal::KeyReused));
    }
    let of_another = keyed(7, "k", request(show.id, 2));
    let made = reserve_with(&mut session, of_another).await.unwrap();
    assert!(!made.is_replay, "keys belong to their callers");

    // A refusal is decided afresh.
    let too_many = keyed(0, "late", request(show.id, 7));
    assert!(reserve_with(&mut session, too_many.clone()).await.is_err());
    let mut batch = Batch::of([change(again.resource.id)]);
    cancel::cancel(&mut session, &mut batch).await.unwrap();
    let made = reserve_with(&mut session, too_many).await.unwrap();
    assert!(!made.is_replay);
    assert_eq!(available_seats(&db.pool, show.id).await, 1);
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_at_the_same_moment_books_once_and_everybody_gets_that_booking() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 100).await;
    let barrier = Arc::new(Barrier::new(40));
    let mut clients = JoinSet::new();
    for client in 0..40 {
        let (pool, barrier) = (db.pool.clone(), barrier.clone());
        clients.spawn(async move {
            // Two requests in a batch, as they may come: with the same key, or with the key of
            // another request.
            let key = keyed(0, "same", request(show.id, 2));
            let own = keyed(0, &format!("{client}"), request(show.id, 1));
            barrier.wait().await;
            let mut batch = Batch::of([own, key.clone(), key]);
            let answers = reserve::reserve(&mut Session::new(&direct(&pool)), &mut batch).await;
            answers.unwrap()
        });
    }
    let answers = clients.join_all().await;
    let same: Vec<_> = answers
        .iter()
        .flat_map(|answers| &answers[1..])
        .map(|answer| answer.as_ref().unwrap())
        .collect();
    assert_eq!(same.iter().filter(|made| !made.is_replay).count(), 1);
    assert!(
        same.iter()
            .all(|made| made.resource.id == same[0].resource.id)
    );
    assert_eq!(available_seats(&db.pool, show.id).await, 100 - 2 - 40);
    assert_seats_conserved(&db.pool).await;
}

/// The two requests share no lock that would order them: the key itself does.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_for_two_shows_at_the_same_moment_books_one_of_them() {
    let db = TestDatabase::new().await;
    let (one, two) = (a_show(&db.pool, 50).await, a_show(&db.pool, 50).await);
    for round in 0..20 {
        let barrier = Arc::new(Barrier::new(2));
        let mut clients = JoinSet::new();
        for show_id in [one.id, two.id] {
            let (pool, barrier) = (db.pool.clone(), barrier.clone());
            clients.spawn(async move {
                let request = keyed(0, &format!("{round}"), request(show_id, 1));
                barrier.wait().await;
                reserve_with(&mut Session::new(&direct(&pool)), request).await
            });
        }
        let answers = clients.join_all().await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        assert!(answers.contains(&Err(Refusal::KeyReused)));
    }
    assert_eq!(count(&db.pool, "SELECT count(*) FROM bookings").await, 20);
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test]
async fn a_show_is_created_once_for_each_key() {
    let db = TestDatabase::new().await;
    let mut session = db.session();
    let creation = |key: &str, seats| {
        let text = key.to_owned();
        Creation {
            new: NewShow::new("Matinée", DateTime::UNIX_EPOCH, seats),
            claim: Some(Claim::new(Key { owner: 1, text }, "create", &seats)),
        }
    };
    let first = show::create(&mut session, creation("k", 5)).await.unwrap();
    let again = show::create(&mut session, creation("k", 5)).await.unwrap();
    let (first, again) = (first.unwrap(), again.unwrap());
    assert!(!first.is_replay && again.is_replay);
    assert_eq!(again.resource, first.resource);
    let refused = show::create(&mut session, creation("k", 6)).await.unwrap();
    assert_eq!(refused, Err(Refusal::KeyReused));
    let booking = keyed(1, "k", request(first.resource.id, 1));
    let refused = reserve_with(&mut session, booking).await;
    assert_eq!(refused, Err(Refusal::KeyReused), "the key made a show");
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

#[tokio::test]
async fn an_extended_hold_outlives_its_first_deadline_and_fails_at_its_last() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let hold = a_hold(&db.pool, &show, 2).await;
    let mut session = db.session();
    let by = |seconds| extend::Request {
        change: change(hold.id),
        seconds,
    };
    let mut batch = Batch::of([by(300), by(901), by(60), by(400)]);
    let answers = extend::extend(&mut session, &mut batch).await.unwrap();
    let deadlines: Vec<i64> = answers
        .iter()
        .flatten()
        .map(|booking| (booking.expires_at - hold.created_at).num_seconds())
        .collect();
    assert_eq!(deadlines, [300, 300, 400]);
    assert!(matches!(answers[1], Err(Refusal::ExtensionTooLong { .. })));

    let_pass(&db.pool, 125).await;
    let outcome = expire::expire(&mut session, &job(&[hold.id]))
        .await
        .unwrap();
    assert_eq!(outcome.expired.len(), 0);
    assert!(outcome.next_deadline.is_some(), "its job runs again");
    let_pass(&db.pool, 280).await;
    let outcome = expire::expire(&mut session, &job(&[hold.id]))
        .await
        .unwrap();
    assert_eq!(outcome.expired.len(), 1);
    let late = extend::extend(&mut session, &mut Batch::of([by(60)])).await;
    assert!(matches!(late.unwrap()[0], Err(Refusal::HoldExpired { .. })));
    assert_eq!(available_seats(&db.pool, show.id).await, 10);
    assert_seats_conserved(&db.pool).await;
}

/// The extension's COMMIT comes after the job has seen the hold overdue, and before the job locks
/// it.
#[tokio::test]
async fn a_hold_extended_at_the_last_moment_keeps_its_job() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let hold = a_hold(&db.pool, &show, 2).await;
    let_pass(&db.pool, 125).await;
    let mut extension = db.pool.begin().await.unwrap();
    let deadline: DateTime<Utc> = sqlx::query_scalar(
        "UPDATE bookings SET expires_at = extendable_until RETURNING expires_at",
    )
    .fetch_one(&mut *extension)
    .await
    .unwrap();
    let mut session = db.session();
    let job = job(&[hold.id]);
    // The hold is left for the next time, and then is no longer due.
    let outcome = expire::expire(&mut session, &job).await.unwrap();
    assert_eq!(outcome.expired.len(), 0);
    assert!(outcome.next_deadline.is_some_and(|again| again < deadline));
    extension.commit().await.unwrap();
    let outcome = expire::expire(&mut session, &job).await.unwrap();
    assert_eq!(
        (outcome.expired.len(), outcome.next_deadline),
        (0, Some(deadline))
    );
}

/// Two workers that expire the same sale constantly meet holds that the other one has locked.
#[tokio::test]
async fn a_job_waits_for_another_worker_that_just_has_its_hold() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let hold = a_hold(&db.pool, &show, 2).await;
    let_pass(&db.pool, 125).await;
    let mut other = db.pool.begin().await.unwrap();
    sqlx::raw_sql(
        "UPDATE bookings SET status = 'FAILED', resolved_at = now();
         UPDATE shows SET available_seats = 10",
    )
    .execute(&mut *other)
    .await
    .unwrap();
    let (mut session, job) = (db.session(), job(&[hold.id]));
    let (outcome, ()) = tokio::join!(expire::expire(&mut session, &job), async {
        until_one_waits_for_a_lock(&db.pool).await;
        other.commit().await.unwrap();
    });
    assert_eq!(outcome.unwrap(), expire::Outcome::default());
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test]
async fn a_booking_changes_only_while_it_is_as_the_client_saw_it() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let hold = a_hold(&db.pool, &show, 2).await;
    let mut session = db.session();
    let only_if = |versions: &[String]| Change {
        only_if: Some(versions.to_vec()),
        ..change(hold.id)
    };
    let stale = Change {
        only_if: Some(vec!["FAILED-0".to_owned()]),
        ..change(hold.id)
    };
    let mut batch = Batch::of([stale.clone(), only_if(&[hold.version()]), stale]);
    let answers = confirm::confirm(&mut session, &mut batch).await.unwrap();
    assert!(matches!(answers[0], Err(Refusal::BookingChanged { .. })));
    let confirmed = answers[1].as_ref().unwrap();
    assert!(answers[2].is_ok(), "it already is as requested");

    let mut batch = Batch::of([only_if(&[hold.version()])]);
    let answers = cancel::cancel(&mut session, &mut batch).await.unwrap();
    assert!(matches!(answers[0], Err(Refusal::BookingChanged { .. })));
    assert_eq!(available_seats(&db.pool, show.id).await, 8);
    let mut batch = Batch::of([only_if(&["x".to_owned(), confirmed.version()])]);
    let answers = cancel::cancel(&mut session, &mut batch).await.unwrap();
    assert!(answers[0].is_ok());
    assert_eq!(available_seats(&db.pool, show.id).await, 10);
}

#[tokio::test]
async fn a_booking_of_another_show_than_was_named_is_not_found() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let other = a_show(&db.pool, 10).await;
    let (hold, mine) = (
        a_hold(&db.pool, &show, 2).await,
        a_hold(&db.pool, &show, 3).await,
    );
    let named = |booking_id, show_id| Change {
        show_id: Some(show_id),
        ..change(booking_id)
    };
    // Alone, and together with a request that names no show.
    for with in [vec![], vec![change(mine.id)]] {
        let batch = [vec![named(hold.id, other.id)], with].concat();
        let mut batch = Batch::of(batch);
        let answers = cancel::cancel(&mut db.session(), &mut batch).await.unwrap();
        assert!(matches!(answers[0], Err(Refusal::BookingNotFound { .. })));
        assert!(answers[1..].iter().all(Result::is_ok));
    }
    let mut batch = Batch::of([named(hold.id, show.id)]);
    let answers = cancel::cancel(&mut db.session(), &mut batch).await.unwrap();
    assert!(answers[0].is_ok());
    assert_eq!(available_seats(&db.pool, show.id).await, 10);
    assert_eq!(available_seats(&db.pool, other.id).await, 10);
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
    sqlx::query("UPDATE bookings SET status = 'FAILED', resolved_at = now() WHERE id = $1")
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

/// Expiring and cancelling lock bookings, then the show. Reserving locks the show, and waits for no
/// booking.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_gives_seats_back_and_takes_them_at_the_same_time_is_never_in_a_deadlock() {
    let db = TestDatabase::new().await;
    // A deadlock then ends with the lock timeout, which is an error, and not with a retry.
    let set = format!("ALTER DATABASE {} SET deadlock_timeout = '1min'", db.name);
    sqlx::raw_sql(AssertSqlSafe(set))
        .execute(&db.pool)
        .await
        .unwrap();
    let database = connect(&db.url, 16).await.unwrap();
    let show = a_show(&db.pool, 20).await;
    for _ in 0..15 {
        let holds: Vec<BookingId> = join_all((0..20).map(|_| reserve_one(&db.pool, show.id, 1)))
            .await
            .into_iter()
            .map(|hold| hold.unwrap().id)
            .collect();
        // Ten holds expire. All are cancelled, which locks the expired ones too. Other requests
        // want their seats.
        sqlx::query("UPDATE bookings SET created_at = now() - interval '2 minutes', expires_at = now() WHERE id = ANY($1)")
            .bind(&holds[..10])
            .execute(&db.pool)
            .await
            .unwrap();
        let barrier = Arc::new(Barrier::new(12));
        let mut clients = JoinSet::new();
        for client in 0..12_usize {
            let mut session = Session::new(&database);
            let (barrier, holds) = (barrier.clone(), holds.clone());
            clients.spawn(async move {
                barrier.wait().await;
                match client {
                    0..4 => {
                        let mut ids = holds;
                        ids.rotate_left(client);
                        expire::expire(&mut session, &job(&ids)).await.map(drop)
                    }
                    4..8 => {
                        let mut batch: Vec<Change> = holds.iter().map(|id| change(*id)).collect();
                        batch.rotate_left(client);
                        cancel::cancel(&mut session, &mut Batch::of(batch))
                            .await
                            .map(drop)
                    }
                    _ => {
                        let batch = vec![request(show.id, 1); 5];
                        reserve::reserve(&mut session, &mut Batch::of(batch))
                            .await
                            .map(drop)
                    }
                }
            });
        }
        for ended in clients.join_all().await {
            ended.unwrap();
        }
        assert_seats_conserved(&db.pool).await;
        let_pass(&db.pool, 125).await;
        expire::sweep(&mut db.session(), show.id, TimeDelta::zero())
            .await
            .unwrap();
        assert_eq!(available_seats(&db.pool, show.id).await, 20);
    }
}
