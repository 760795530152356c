//! Tests of how many pages a transaction reads while the planner knows nothing of the tables.
//!
//! The planner is in that state in the first minute of a new system's first sale, before anything
//! was analyzed. A transaction must read what it is about, and not the rest of the sale.

use chrono::{DateTime, TimeDelta};
use shared::{
    batch::Batch,
    booking::{cancel, confirm, expire, extend, reserve},
    id::BookingId,
    idempotency::{Claim, Key},
    postgres::Session,
    show::{NewShow, Show},
};
use sqlx::PgPool;
use testing::{TestDatabase, a_show, change, connect, create, execute, job, let_pass, recount};

/// Number of bookings that a transaction changes.
const BATCH: i64 = 100;

/// Number of times that each transaction is run.
const RUNS: i64 = 4;

/// Creates a show in the middle of its sale, with 50,000 holds, in a database never analyzed.
async fn a_sale(pool: &PgPool) -> Show {
    let show = create(
        pool,
        NewShow {
            max_seats_per_user: Some(1000),
            ..NewShow::new("Morning Show", DateTime::UNIX_EPOCH, 1_000_000)
        },
    )
    .await;
    for sql in [
        "ALTER TABLE bookings SET (autovacuum_enabled = false)",
        "ALTER TABLE shows SET (autovacuum_enabled = false)",
        "ALTER TABLE idempotency_keys SET (autovacuum_enabled = false)",
        "ALTER TABLE batches SET (autovacuum_enabled = false)",
        "INSERT INTO bookings (id, batch_id, show_id, user_name, number_of_seats, status, expires_at, extendable_until, created_at,
                               counts_per_user, counted_as) OVERRIDING SYSTEM VALUE
         SELECT n, batch_id, shows.id, 'user ' || n, 1, 'PENDING', now() + interval '1 hour' + batch_id * interval '1 ms',
                now() + interval '1 day', now(), true, 'user' || n
         FROM shows, generate_series(1, 50000) AS n, LATERAL (SELECT (n + 99) / 100 * 100 AS batch_id) AS batch",
        "SELECT setval('bookings_id_seq', 50000)",
        "INSERT INTO idempotency_keys (owner, key, fingerprint, show_id, booking_id)
         SELECT 0, 'key ' || id, '', show_id, id FROM bookings",
        "UPDATE shows SET available_seats = seats - 50000",
    ] {
        execute(pool, sql).await;
    }
    recount(pool).await;
    show
}

/// Returns how many pages of tables and indexes are read for each booking that the runs change.
///
/// It counts the reads of this pool's one connection.
async fn pages_for_each(pool: &PgPool, run: impl AsyncFn(i64) -> usize) -> i64 {
    let read = async || -> i64 {
        execute(pool, "SELECT pg_stat_force_next_flush()").await;
        sqlx::query_scalar(
            "SELECT sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint
             FROM pg_statio_user_tables WHERE schemaname = 'public'",
        )
        .fetch_one(pool)
        .await
        .unwrap()
    };
    let before = read().await;
    let mut changed = 0;
    for number in 0..RUNS {
        changed += run(number).await;
    }
    (read().await - before) / i64::try_from(changed).unwrap()
}

/// Returns the ids of those existing bookings that this run changes.
fn ids(part: i64, run: i64) -> impl Iterator<Item = BookingId> {
    let first = (part * RUNS + run) * BATCH + 1;
    (first..first + BATCH).map(BookingId)
}

fn requests(show: &Show, run: i64) -> Vec<reserve::Request> {
    (0..BATCH)
        .map(|n| reserve::Request {
            claim: Some(Claim {
                key: Key {
                    owner: 0,
                    text: format!("new key {run} {n}"),
                },
                fingerprint: vec![1],
            }),
            ..reserve::Request::new(show.id, &format!("user {}", 1000 + n), 1)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_reads_what_it_is_about_whatever_the_planner_knows() {
    let db = TestDatabase::new().await;
    let show = a_sale(&db.pool).await;
    let database = connect(&db.url, 1).await.unwrap();
    let pool = database.pool.clone();

    let session = || Session::new(&database);
    let mut costs = Vec::new();
    let cost = pages_for_each(&pool, async |run| {
        let answers = reserve::reserve(&mut session(), &mut Batch::of(requests(&show, run))).await;
        answers
            .unwrap()
            .iter()
            .filter(|answer| answer.is_ok())
            .count()
    })
    .await;
    costs.push(("reserve", cost));
    let cost = pages_for_each(&pool, async |run| {
        let batch: Vec<_> = ids(1, run).map(change).collect();
        let answers = confirm::confirm(&mut session(), &mut Batch::of(batch)).await;
        answers
            .unwrap()
            .iter()
            .filter(|answer| answer.is_ok())
            .count()
    })
    .await;
    costs.push(("confirm", cost));
    let cost = pages_for_each(&pool, async |run| {
        let batch: Vec<_> = ids(2, run).map(change).collect();
        let answers = cancel::cancel(&mut session(), &mut Batch::of(batch)).await;
        answers
            .unwrap()
            .iter()
            .filter(|answer| answer.is_ok())
            .count()
    })
    .await;
    costs.push(("cancel", cost));
    let cost = pages_for_each(&pool, async |run| {
        let batch: Vec<_> = ids(3, run)
            .map(|id| extend::Request {
                change: change(id),
                seconds: 80_000,
            })
            .collect();
        let answers = extend::extend(&mut session(), &mut Batch::of(batch)).await;
        answers
            .unwrap()
            .iter()
            .filter(|answer| answer.is_ok())
            .count()
    })
    .await;
    costs.push(("extend", cost));
    let cost = pages_for_each(&pool, async |run| {
        let due: Vec<BookingId> = ids(4, run).collect();
        sqlx::query(
            "WITH due AS (UPDATE batches SET expires_at = now() WHERE show_id = $1 AND id = ANY($2))
             UPDATE bookings SET created_at = now() - interval '1 minute', expires_at = now() WHERE show_id = $1 AND id = ANY($2)",
        )
        .bind(show.id)
        .bind(&due)
        .execute(&pool)
        .await
        .unwrap();
        expire::expire(&mut session(), &job(&due)).await.unwrap().expired.len()
    })
    .await;
    costs.push(("expire", cost));
    let_pass(&pool, 2 * 3600).await;
    let cost = pages_for_each(&pool, async |_| {
        let shows = expire::find_overdue_shows(&pool, TimeDelta::zero()).await;
        let mut swept = 0;
        for show_id in shows.unwrap() {
            swept += expire::sweep(&mut session(), show_id, TimeDelta::zero())
                .await
                .unwrap();
        }
        swept
    })
    .await;
    costs.push(("sweep", cost));

    println!("{costs:?}");
    for (transaction, pages) in costs {
        assert!(
            pages <= 50,
            "{transaction} reads {pages} pages for each booking"
        );
    }
}

/// While any transaction of the server stays open, no version of a row is removed.
///
/// A hot show's row has one version for each transaction, and the newest is found without the
/// others.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_somebody_forgot_does_not_make_a_hot_show_slow() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 1000).await;
    let reserve = async |first| {
        // A new connection, which makes plans of its own.
        let pool = connect(&db.url, 1).await.unwrap();
        pages_for_each(&pool.pool, async |run| {
            let request = requests(&show, first + run).remove(0);
            let mut batch = Batch::of([request]);
            let answers = reserve::reserve(&mut Session::new(&pool), &mut batch).await;
            answers.unwrap().len()
        })
        .await
    };
    let usual = reserve(0).await;

    let mut forgotten = db.pool.begin().await.unwrap();
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        .execute(&mut *forgotten)
        .await
        .unwrap();
    sqlx::query("SELECT FROM shows")
        .execute(&mut *forgotten)
        .await
        .unwrap();
    execute(
        &db.pool,
        "DO $$ BEGIN
             FOR change IN 1..20000 LOOP
                 UPDATE shows SET revision = revision + 1
                 WHERE generation = (SELECT generation FROM shows ORDER BY id DESC, generation DESC LIMIT 1);
             END LOOP;
         END $$",
    )
    .await;
    let beside = reserve(100).await;
    execute(&db.pool, "ANALYZE shows").await;
    let analyzed = reserve(200).await;
    println!("{usual} pages for a booking; {beside} and {analyzed} beside a forgotten transaction");
    assert!(
        beside.max(analyzed) <= 2 * usual + 20,
        "{usual}, {beside}, {analyzed} pages"
    );
    forgotten.rollback().await.unwrap();
}
