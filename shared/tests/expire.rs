//! Expiring holds.

use chrono::{DateTime, TimeDelta, Utc};
use shared::{
    batch::Batch,
    booking::{
        BookingStatus, Refusal, expire, extend, query,
        reserve::{self},
    },
    id::BookingId,
};
use testing::{
    TestDatabase, a_hold, a_show, assert_seats_conserved, available_seats, booked, change, job,
    let_pass, request, stored_status, until_one_waits_for_a_lock,
};

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
        let listed = query::list(&db.database, &filter, None, 10).await.unwrap();
        let ids: Vec<BookingId> = listed.iter().map(|b| b.id).collect();
        assert_eq!(ids, [expected]);
        assert_eq!(listed[0].status, status);
    }
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
    let answers = booked(answers);
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
        "WITH extended AS (
             UPDATE bookings SET expires_at = extendable_until, is_extended = true
             RETURNING show_id, id, expires_at, number_of_seats),
         former AS (UPDATE batches SET held = 0, held_seats = 0, has_held = false)
         INSERT INTO batches (show_id, id, is_extension, first_id, expires_at, held, held_seats, has_held)
         SELECT show_id, id, true, id, expires_at, 1, number_of_seats, true FROM extended RETURNING expires_at",
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
         UPDATE batches SET held = 0, held_seats = 0, failed = 1, has_held = false, has_failed = true;
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
