//! Test support: a migrated database for each test, and builders of test data.

mod clock;
mod database;
mod fixtures;
mod reserving;

use std::{env, process::Command, sync::Once, time::Duration};

use chrono::{DateTime, Utc};
use shared::{
    audit::{SEATS_ARE_CONSERVED, audit},
    id::{BookingId, ShowId},
};
use sqlx::{PgPool, Postgres, Transaction};

pub use self::{
    clock::SteppedClock,
    database::{DataDir, TestDatabase, connect, direct},
    fixtures::{a_hold, a_show, a_show_with_hold, change, create, job},
    reserving::{booked, keyed, request, reserve_in, reserve_one, reserve_with},
};

/// Makes `seconds` pass for every hold and every job, by moving their times into the past.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn let_pass(pool: &PgPool, seconds: i32) {
    sqlx::query(
        "WITH jobs AS (UPDATE apalis.jobs SET run_at = run_at - make_interval(secs => $1)),
              moved AS (
                  UPDATE batches SET expires_at = expires_at - make_interval(secs => $1) WHERE has_held AND id > 0
                  RETURNING show_id, first_id, id)
         UPDATE bookings SET expires_at = bookings.expires_at - make_interval(secs => $1),
                             extendable_until = extendable_until - make_interval(secs => $1),
                             created_at = created_at - make_interval(secs => $1),
                             clock_high = clock_high - make_interval(secs => $1)
         FROM moved WHERE bookings.show_id = moved.show_id AND bookings.id BETWEEN first_id AND moved.id AND resolved_at IS NULL",
    )
    .bind(f64::from(seconds))
    .execute(pool)
    .await
    .expect("moved");
}

/// Makes the batches agree with the bookings, after a test changed bookings by hand.
///
/// A hold with another deadline than its batch counts as extended.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn recount(pool: &PgPool) {
    sqlx::raw_sql(
        "BEGIN;
         SET LOCAL enable_seqscan = on; SET LOCAL statement_timeout = 0;
         UPDATE bookings SET is_extended = true FROM batches
         WHERE batches.show_id = bookings.show_id AND batches.id = batch_id AND NOT is_extension
           AND status = 'PENDING' AND bookings.expires_at <> batches.expires_at;
         DELETE FROM batches;
         INSERT INTO batches (show_id, id, first_id, expires_at, held, held_seats, confirmed, failed, cancelled,
                              has_held, has_confirmed, has_failed, has_cancelled)
         SELECT show_id, batch_id, min(id), coalesce(min(expires_at) FILTER (WHERE NOT is_extended), max(expires_at)),
                count(*) FILTER (WHERE status = 'PENDING' AND NOT is_extended),
                coalesce(sum(number_of_seats) FILTER (WHERE status = 'PENDING' AND NOT is_extended), 0),
                count(*) FILTER (WHERE status = 'CONFIRMED'), count(*) FILTER (WHERE status = 'FAILED'),
                count(*) FILTER (WHERE status = 'CANCELLED'), bool_or(status = 'PENDING' AND NOT is_extended),
                bool_or(status = 'CONFIRMED'), bool_or(status = 'FAILED'), bool_or(status = 'CANCELLED')
         FROM bookings GROUP BY show_id, batch_id ORDER BY show_id, batch_id;
         INSERT INTO batches (show_id, id, is_extension, first_id, expires_at, held, held_seats, has_held)
         SELECT show_id, id, true, id, expires_at, 1, number_of_seats, true FROM bookings WHERE is_extended AND status = 'PENDING';
         COMMIT",
    )
    .execute(pool)
    .await
    .expect("recounted");
}

/// Returns the number that a query selects.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql)
        .fetch_one(pool)
        .await
        .expect("counted")
}

/// Runs a statement.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn execute(pool: &PgPool, sql: &'static str) {
    sqlx::query(sql).execute(pool).await.expect("executed");
}

/// Returns the status in a booking's row, whatever the time.
///
/// # Panics
///
/// Panics if there is no such booking or the database fails.
pub async fn stored_status(pool: &PgPool, booking_id: BookingId) -> String {
    sqlx::query_scalar("SELECT status FROM bookings WHERE id = $1")
        .bind(booking_id)
        .fetch_one(pool)
        .await
        .expect("the booking")
}

/// Returns the available seats in a show's row, which do not include seats of overdue holds.
///
/// # Panics
///
/// Panics if there is no such show or the database fails.
pub async fn available_seats(pool: &PgPool, show_id: ShowId) -> i32 {
    sqlx::query_scalar("SELECT available_seats FROM shows WHERE id = $1")
        .bind(show_id)
        .fetch_one(pool)
        .await
        .expect("the show")
}

/// Checks invariant 1 on every show: no seat was lost and none was sold twice.
///
/// # Panics
///
/// Panics if the invariant is broken.
pub async fn assert_seats_conserved(pool: &PgPool) {
    let audit = audit(&direct(pool), Duration::ZERO).await.expect("checked");
    let seats = audit
        .invariants
        .iter()
        .find(|found| found.name == SEATS_ARE_CONSERVED)
        .expect("the audit checks it");
    assert_eq!(seats.broken, 0, "{:?}", seats.examples);
}

/// Waits until `condition` holds.
///
/// # Panics
///
/// Panics if it does not hold within two minutes. That bound is for conditions that never hold: a
/// busy machine needs its time.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(2);
    while !condition().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "not within two minutes: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Starts a transaction that keeps a show locked.
///
/// # Panics
///
/// Panics if the database can't be reached.
pub async fn lock_show(pool: &PgPool, show_id: ShowId) -> Transaction<'static, Postgres> {
    let mut blocker = pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM shows WHERE id = $1 FOR UPDATE")
        .bind(show_id)
        .execute(&mut *blocker)
        .await
        .unwrap();
    blocker
}

/// Waits until exactly one transaction of this database waits for a lock.
///
/// # Panics
///
/// Panics as [`eventually`] does.
pub async fn until_one_waits_for_a_lock(pool: &PgPool) {
    eventually("a transaction waits for a lock", async || {
        sqlx::query_scalar(
            "SELECT count(*) = 1 FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(pool)
        .await
        .expect("counted")
    })
    .await;
}

/// Returns the time of the database's clock.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn now(pool: &PgPool) -> DateTime<Utc> {
    sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(pool)
        .await
        .expect("the time")
}

/// Builds all programs of the workspace.
///
/// Cargo does not build them when it tests one package alone. When it tests the whole workspace,
/// nothing is left to build.
///
/// # Panics
///
/// Panics if the programs can't be built.
pub fn build_programs() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--workspace", "--locked", "--no-run", "--quiet"]);
        // Cargo describes the tested package to its tests. Build scripts read the same variables: with
        // other values some would run again, and what depends on them would be compiled again, now and
        // by the next command.
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_")
                || text.starts_with("CARGO_MANIFEST_")
                || text == "OUT_DIR"
            {
                cargo.env_remove(&name);
            }
        }
        let built = cargo.status().expect("cargo runs");
        assert!(built.success(), "the programs can't be built");
    });
}
