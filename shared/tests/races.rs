//! Transactions on the same bookings at the same time.

use std::sync::Arc;

use chrono::TimeDelta;
use futures_util::future::join_all;
use shared::{
    batch::Batch,
    booking::{
        Booking, PartialChange, cancel, confirm, expire, query,
        reserve::{self},
    },
    id::BookingId,
    postgres::Session,
};
use sqlx::{AssertSqlSafe, PgPool};
use testing::{
    TestDatabase, a_hold, a_show, assert_seats_conserved, available_seats, change, connect, direct,
    job, let_pass, recount, request, reserve_one, stored_status,
};
use tokio::{sync::Barrier, task::JoinSet};

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
        recount(&db.pool).await;
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
        recount(&db.pool).await;
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
                        let mut batch: Vec<PartialChange> =
                            holds.iter().map(|id| change(*id)).collect();
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
