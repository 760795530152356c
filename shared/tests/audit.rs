//! Tests that the audit finds each broken invariant, and nothing else.

use std::time::Duration;

use shared::{
    audit::{Audit, audit},
    batch::Batch,
    booking::{cancel, confirm, expire},
};
use sqlx::PgPool;
use testing::{TestDatabase, a_hold, a_show, change, direct, job, let_pass};

const LIMIT: Duration = Duration::from_mins(1);

/// Creates a database that has a show with bookings in every state.
async fn a_used_database() -> TestDatabase {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 100).await;
    let mut session = db.session();
    let late = a_hold(&db.pool, &show, 1).await;
    let_pass(&db.pool, 500).await;
    expire::expire(&mut session, &job(&[late.id]))
        .await
        .unwrap();
    let sold = a_hold(&db.pool, &show, 2).await;
    let given_up = a_hold(&db.pool, &show, 3).await;
    a_hold(&db.pool, &show, 4).await;
    confirm::confirm(&mut session, &mut Batch::of([change(sold.id)]))
        .await
        .unwrap();
    cancel::cancel(&mut session, &mut Batch::of([change(given_up.id)]))
        .await
        .unwrap();
    db
}

fn broken(audit: &Audit) -> Vec<&'static str> {
    let broken = audit.invariants.iter().filter(|found| found.broken > 0);
    broken.map(|found| found.name).collect()
}

async fn break_it(pool: &PgPool, statements: &'static str) -> Audit {
    sqlx::raw_sql(statements).execute(pool).await.unwrap();
    audit(&direct(pool), LIMIT).await.unwrap()
}

#[tokio::test]
async fn a_healthy_database_passes_and_is_not_locked() {
    let db = a_used_database().await;
    let mut busy = db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM shows, bookings FOR UPDATE")
        .execute(&mut *busy)
        .await
        .unwrap();
    let audit = audit(&db.database, LIMIT).await.unwrap();
    assert!(audit.passes(), "{:?}", audit.invariants);
    assert_eq!((audit.shows, audit.bookings), (1, 4));
}

#[tokio::test]
async fn each_broken_invariant_is_found() {
    for (statements, expected) in [
        (
            "UPDATE shows SET available_seats = available_seats - 1",
            vec!["seats = available + pending + confirmed, for each show"],
        ),
        (
            "ALTER TABLE shows DROP CONSTRAINT shows_available_seats_range;
             UPDATE shows SET available_seats = seats + 1",
            vec![
                "seats = available + pending + confirmed, for each show",
                "0 <= available <= seats, for each show",
            ],
        ),
        (
            "DELETE FROM shows",
            vec!["each booking's show exists"],
        ),
        (
            "INSERT INTO shows (id, name, starts_at, seats, available_seats, revision) OVERRIDING SYSTEM VALUE
             SELECT 4711, name, starts_at, 1, 1, twice.revision FROM shows, (VALUES (0), (32)) AS twice (revision)",
            vec!["show ids are unique"],
        ),
        (
            "INSERT INTO bookings (id, batch_id, show_id, user_name, number_of_seats, status, expires_at,
                                   extendable_until, created_at, resolved_at)
             OVERRIDING SYSTEM VALUE
             SELECT id, batch_id, show_id + 1, user_name, number_of_seats, status, expires_at, extendable_until,
                    created_at, resolved_at
             FROM bookings WHERE status = 'FAILED';
             INSERT INTO batches (show_id, id, first_id, expires_at, held, held_seats, failed, has_held, has_failed)
             SELECT show_id + 1, id, first_id, expires_at, 0, 0, 1, false, true FROM batches WHERE has_failed;
             INSERT INTO shows (name, starts_at, seats, available_seats) VALUES ('other', now(), 1, 1)",
            vec!["booking ids are unique", "no two batches overlap"],
        ),
        (
            "UPDATE bookings SET resolved_at = expires_at WHERE status = 'CONFIRMED'",
            vec!["each booking's status agrees with its times"],
        ),
        (
            "UPDATE bookings SET expires_at = now() - interval '2 min', created_at = now() - interval '3 min'
             WHERE status = 'PENDING';
             UPDATE batches SET expires_at = now() - interval '2 min' WHERE has_held",
            vec!["no hold is overdue for longer than the limit"],
        ),
        (
            "DELETE FROM apalis.jobs",
            vec!["each hold has a job, or a worker to sweep it"],
        ),
        (
            "UPDATE shows SET max_seats_per_user = 1; UPDATE bookings SET counts_per_user = status IN ('PENDING', 'CONFIRMED')",
            vec!["no user got more seats than the show allows"],
        ),
        (
            "UPDATE bookings SET from_id = (SELECT id FROM bookings WHERE status = 'CONFIRMED') WHERE status = 'PENDING'",
            vec!["no booking passed on more seats than it had"],
        ),
        (
            "UPDATE shows SET sale_status = 'CANCELLED'",
            vec!["the bookings of a cancelled show are cancelled, or a job will do it"],
        ),
        (
            "INSERT INTO idempotency_keys (owner, key, fingerprint, show_id, booking_id) VALUES (0, 'k', '', 1, 4711)",
            vec!["the show or booking of each idempotency key exists"],
        ),
        (
            "DELETE FROM bookings WHERE status = 'CANCELLED'; DELETE FROM batches WHERE has_cancelled",
            vec!["the bookings of each job exist"],
        ),
        (
            "UPDATE batches SET confirmed = 2 WHERE has_confirmed",
            vec!["each booking is counted in its batch"],
        ),
        (
            "UPDATE batches SET held_seats = held_seats + 1 WHERE has_held",
            vec!["each booking is counted in its batch"],
        ),
        (
            "UPDATE batches SET has_cancelled = true",
            vec!["each booking is counted in its batch"],
        ),
        (
            "DELETE FROM batches WHERE has_failed",
            vec!["each booking is counted in its batch"],
        ),
        (
            "UPDATE bookings SET is_extended = true WHERE status = 'PENDING'",
            vec!["each booking is counted in its batch"],
        ),
        (
            "UPDATE batches SET expires_at = expires_at + interval '1 s' WHERE has_held",
            vec!["each hold has the deadline of its batch"],
        ),
    ] {
        let db = a_used_database().await;
        let audit = break_it(&db.pool, statements).await;
        assert_eq!(broken(&audit), expected, "{statements}");
        assert!(!audit.passes());
        assert!(audit.invariants.iter().all(|f| f.examples.is_empty() == (f.broken == 0)));
    }
}

/// Jobs with other payloads in the queue must not abort the audit.
#[tokio::test]
async fn a_payload_that_is_none_of_ours_is_passed_over() {
    let db = a_used_database().await;
    let audit = break_it(
        &db.pool,
        r#"INSERT INTO apalis.jobs (id, job_type, job)
           VALUES ('a', 'expire-bookings', '\xff00'), ('b', 'expire-bookings', '{"bookingIds":[99999999999999999999]}'),
                  ('c', 'expire-bookings', '[]'), ('d', 'another', '{"bookingIds":[4711]}')"#,
    )
    .await;
    assert!(audit.passes(), "{:?}", audit.invariants);
}
