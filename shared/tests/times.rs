//! Tests of out-of-range times that others wrote, and of a clock that is set back.

use chrono::{DateTime, TimeDelta, Utc};
use shared::{
    audit::audit,
    batch::Batch,
    booking::{
        Booking, cancel, confirm, extend,
        query::{self, Filter},
    },
    id::BookingId,
    queue::{
        JobState,
        inspect::{self, Filter as JobFilter},
    },
    sales, show,
};
use sqlx::{AssertSqlSafe, PgPool};
use testing::{TestDatabase, a_hold, a_show, change, count, execute, let_pass, now};

/// Times that PostgreSQL can have and a response can't.
const OUT_OF_BOUNDS: [&str; 5] = [
    "infinity",
    "-infinity",
    "10000-01-01 00:00:00+00",
    "294276-12-31 00:00:00+00",
    "0001-12-31 00:00:00+00 BC",
];

/// Inserts a row in each table that has times, and returns the booking.
async fn fill(pool: &PgPool) -> Booking {
    let show = a_show(pool, 10).await;
    execute(
        pool,
        "INSERT INTO idempotency_keys (owner, key, fingerprint, show_id) VALUES (0, 'k', '', 1)",
    )
    .await;
    execute(
        pool,
        "INSERT INTO api_keys (name, secret_hash, scopes) VALUES ('a', sha256(''), '{}')",
    )
    .await;
    execute(
        pool,
        "INSERT INTO queue_pauses (queue, paused_by) VALUES ('q', 'a')",
    )
    .await;
    execute(
        pool,
        "INSERT INTO interventions (actor, action, target, affected) VALUES ('a', 'run', 'x', 1)",
    )
    .await;
    a_hold(pool, &show, 1).await
}

#[tokio::test]
async fn no_table_takes_a_time_that_no_answer_can_have() {
    let db = TestDatabase::new().await;
    fill(&db.pool).await;
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT attrelid::regclass::text, attname::text FROM pg_attribute
         JOIN pg_class ON pg_class.oid = attrelid
         WHERE relkind = 'r' AND atttypid IN ('timestamptz'::regtype, 'instant'::regtype) AND NOT attisdropped
           AND (relnamespace = 'public'::regnamespace OR attrelid = 'apalis.jobs'::regclass)
           AND relname <> '_sqlx_migrations'
         ORDER BY 1, 2",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert!(columns.len() >= 14, "{columns:?}");
    for (table, column) in &columns {
        for value in OUT_OF_BOUNDS {
            // Columns that must be later, or agree with it, are changed with it.
            let others = match column.as_str() {
                "expires_at" if table == "bookings" => ", extendable_until = 'infinity'",
                "resolved_at" => ", status = 'CONFIRMED'",
                _ => "",
            };
            let sql = format!("UPDATE {table} SET {column} = '{value}'{others}");
            let result = sqlx::query(AssertSqlSafe(sql)).execute(&db.pool).await;
            let error = result.expect_err(&format!("{table}.{column} = {value}"));
            let code = error
                .as_database_error()
                .and_then(sqlx::error::DatabaseError::code);
            assert_eq!(code.as_deref(), Some("23514"), "{table}.{column}: {error}");
        }
    }
}

async fn drop_checks(pool: &PgPool) {
    let checks: Vec<String> = sqlx::query_scalar(
        "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) FROM pg_constraint
         WHERE contype = 'c' AND conrelid IN ('shows'::regclass, 'bookings'::regclass, 'batches'::regclass, 'apalis.jobs'::regclass)
         UNION ALL
         SELECT 'ALTER DOMAIN instant DROP CONSTRAINT instant_range'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    for check in checks {
        sqlx::query(AssertSqlSafe(check))
            .execute(pool)
            .await
            .unwrap();
    }
}

/// Covers tables whose CHECK is missing, too.
#[tokio::test]
async fn a_time_that_no_answer_can_have_takes_nothing_else_down() {
    let db = TestDatabase::new().await;
    let bad = fill(&db.pool).await;
    let show = show::find(&db.pool, bad.show_id).await.unwrap().unwrap();
    let good = a_hold(&db.pool, &show, 1).await;
    drop_checks(&db.pool).await;
    for value in OUT_OF_BOUNDS {
        let at = format!("'{value}'::timestamptz");
        for sql in [
            format!(
                "UPDATE bookings SET created_at = {at}, expires_at = {at}, extendable_until = {at} WHERE id = {}",
                bad.id
            ),
            format!("UPDATE batches SET expires_at = {at} WHERE id = {}", bad.id),
            format!("UPDATE shows SET starts_at = {at}, created_at = {at}"),
            format!(
                "UPDATE apalis.jobs SET run_at = {at}, lock_at = {at}, done_at = {at} WHERE id = (SELECT min(id) FROM apalis.jobs)"
            ),
            format!(
                "INSERT INTO apalis.workers (id, worker_type, storage_name, last_seen) VALUES ('{value}', 't', 's', {at})"
            ),
        ] {
            sqlx::query(AssertSqlSafe(sql))
                .execute(&db.pool)
                .await
                .unwrap();
        }
        let listed = query::list(&db.database, &Filter::default(), None, 10)
            .await
            .unwrap();
        assert_eq!(
            listed.iter().map(|b| b.id).collect::<Vec<_>>(),
            [bad.id, good.id]
        );
        assert!(query::find(&db.pool, bad.id, None).await.unwrap().is_some());
        let mut batch = Batch::of([change(bad.id), change(good.id)]);
        let answers = confirm::confirm(&mut db.session(), &mut batch)
            .await
            .unwrap();
        assert!(answers[1].is_ok(), "{value}: {answers:?}");
        assert_eq!(
            show::list(&db.database, &show::Filter::default(), None, 10)
                .await
                .unwrap()
                .len(),
            1
        );
        assert_eq!(sales::shows(&db.pool, 10).await.unwrap().len(), 1);
        sales::pulse(&db.database).await.unwrap();
        for state in JobState::ALL.map(Some).into_iter().chain([None]) {
            let filter = JobFilter {
                queue: "expire-bookings".to_owned(),
                state,
                booking_id: None,
                show_id: None,
            };
            inspect::jobs(&db.pool, &filter, None, 10).await.unwrap();
        }
        inspect::queues(&db.pool).await.unwrap();
        inspect::workers(&db.pool).await.unwrap();
        audit(&db.database, std::time::Duration::ZERO)
            .await
            .unwrap();
    }
}

/// Sets the clock back by this many seconds, as the existing bookings and jobs see it.
async fn set_back(pool: &PgPool, seconds: i32) {
    let_pass(pool, -seconds).await;
}

#[tokio::test]
async fn times_of_a_booking_never_run_backwards() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 10).await;
    let hold = a_hold(&db.pool, &show, 1).await;
    let sold = a_hold(&db.pool, &show, 2).await;
    set_back(&db.pool, 600).await;
    let read = async |id| query::find(&db.pool, id, None).await.unwrap().unwrap();
    let seen = read(hold.id).await;
    assert_eq!(seen.seconds_left(), Some(120), "no more than it ever had");

    let mut session = db.session();
    let mut batch = Batch::of([extend::Request {
        change: change(hold.id),
        seconds: 800,
    }]);
    extend::extend(&mut session, &mut batch)
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    for id in [hold.id, sold.id] {
        let mut batch = Batch::of([change(id)]);
        let confirmed = confirm::confirm(&mut session, &mut batch).await.unwrap();
        let confirmed = confirmed[0].clone().unwrap();
        assert_eq!(confirmed.resolved_at, Some(confirmed.created_at));
        assert_eq!(read(id).await.as_of(confirmed.read_at), confirmed);
    }
    // It was confirmed ten minutes from now, too.
    let mut batch = Batch::of([change(sold.id)]);
    let cancelled = cancel::cancel(&mut session, &mut batch).await.unwrap();
    let cancelled = cancelled[0].clone().unwrap();
    assert_eq!(cancelled.resolved_at, Some(cancelled.created_at));
    assert_eq!(read(sold.id).await.as_of(cancelled.read_at), cancelled);
    let audit = audit(&db.database, std::time::Duration::ZERO)
        .await
        .unwrap();
    assert!(audit.passes(), "{audit:#?}");
}

#[tokio::test]
async fn a_list_by_time_is_whole_when_the_clock_was_set_back() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 1000).await;
    let mut expected: Vec<(BookingId, DateTime<Utc>)> = Vec::new();
    for _ in 0..3 {
        for _ in 0..20 {
            a_hold(&db.pool, &show, 1).await;
        }
        set_back(&db.pool, 600).await;
    }
    for _ in 0..20 {
        a_hold(&db.pool, &show, 1).await;
    }
    for booking in query::list(&db.database, &Filter::default(), None, 1000)
        .await
        .unwrap()
    {
        expected.push((booking.id, booking.created_at));
    }
    assert_eq!(expected.len(), 80);
    let now = now(&db.pool).await;
    for minutes in [-5, 5, 15, 25] {
        let instant = now + TimeDelta::minutes(minutes);
        let filter = Filter {
            created_after: Some(instant),
            ..Filter::default()
        };
        let listed = query::list(&db.database, &filter, None, 1000)
            .await
            .unwrap();
        let listed: Vec<BookingId> = listed.iter().map(|booking| booking.id).collect();
        let later = expected.iter().filter(|(_, at)| *at > instant);
        assert_eq!(
            listed,
            later.map(|(id, _)| *id).collect::<Vec<_>>(),
            "{minutes} min"
        );
    }
    // A booking made when the clock has caught up need not record the latest time.
    let_pass(&db.pool, 7200).await;
    let last = a_hold(&db.pool, &show, 1).await;
    let remembered = "SELECT count(*) FROM bookings WHERE clock_high IS NOT NULL";
    assert_eq!(
        count(&db.pool, remembered).await,
        60,
        "not booking {}",
        last.id
    );
}
