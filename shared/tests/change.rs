//! Confirming, cancelling and extending.

use shared::{
    batch::Batch,
    booking::{BookingStatus, Change, PartialChange, Refusal, cancel, confirm},
};
use testing::{
    TestDatabase, a_hold, a_show, assert_seats_conserved, available_seats, change, recount,
};

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
    recount(&db.pool).await;

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
    let mut batch = Batch::of([
        stale.clone().into(),
        only_if(&[hold.version()]).into(),
        stale.into(),
    ]);
    let answers = confirm::confirm(&mut session, &mut batch).await.unwrap();
    assert!(matches!(answers[0], Err(Refusal::BookingChanged { .. })));
    let confirmed = answers[1].as_ref().unwrap();
    assert!(answers[2].is_ok(), "it already is as requested");

    let mut batch = Batch::of([only_if(&[hold.version()]).into()]);
    let answers = cancel::cancel(&mut session, &mut batch).await.unwrap();
    assert!(matches!(answers[0], Err(Refusal::BookingChanged { .. })));
    assert_eq!(available_seats(&db.pool, show.id).await, 8);
    let mut batch = Batch::of([only_if(&["x".to_owned(), confirmed.version()]).into()]);
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
    let named = |booking_id, show_id| {
        PartialChange::from(Change {
            show_id: Some(show_id),
            ..change(booking_id)
        })
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
