//! Tests of lists: contents, order and cost.

use chrono::{DateTime, Utc};
use shared::booking::{
    Booking, BookingStatus,
    query::{self, Cursor, Filter},
};
use shared::{id::ShowId, postgres::Database};
use sqlx::PgPool;
use testing::{TestDatabase, connect, execute, recount};

/// Inserts bookings as a year of sales leaves them: many shows and users, almost all resolved.
///
/// One show and one user have every third batch of this many bookings. Only the order of the
/// bookings matters here, and not the shows.
async fn fill(pool: &PgPool, bookings: i64, batch: i64) {
    // In parts, so that no statement reaches its timeout.
    for first in (1..=bookings).step_by(100_000) {
        let last = bookings.min(first + 99_999);
        fill_part(pool, first, last, bookings, batch).await;
    }
    execute(
        pool,
        "SELECT setval('bookings_id_seq', (SELECT max(id) FROM bookings))",
    )
    .await;
    recount(pool).await;
    execute(pool, "ANALYZE bookings, batches").await;
}

async fn fill_part(pool: &PgPool, first: i64, last: i64, bookings: i64, batch: i64) {
    sqlx::query(
        "INSERT INTO bookings (id, batch_id, show_id, user_name, number_of_seats, status, expires_at, extendable_until, created_at,
                               resolved_at, reference) OVERRIDING SYSTEM VALUE
         SELECT n, least(number * $4 + $4, $1), CASE WHEN number % 3 = 0 THEN 1 ELSE number % 1000 END,
                CASE WHEN number % 3 = 0 THEN 'Alice' ELSE 'user ' || number % 1000 END,
                1, status, created_at + interval '1 hour', created_at + interval '2 hours', created_at,
                CASE WHEN status <> 'PENDING' THEN created_at + interval '1 minute' END,
                CASE WHEN number % 3 = 0 THEN 'A' ELSE 'order ' || number % 1000 END
         FROM generate_series($2::bigint, $3) AS n, LATERAL (SELECT (n - 1) / $4 AS number) AS batch,
              LATERAL (SELECT now() + interval '1 minute' - ($1 - number * $4) * interval '10 milliseconds' AS created_at,
                              CASE WHEN n > $1 - 1000 THEN 'PENDING' WHEN n % 100 = 0 THEN 'CANCELLED'
                                   WHEN n % 10 < 7 THEN 'CONFIRMED' ELSE 'FAILED' END AS status) AS row",
    )
    .bind(bookings)
    .bind(first)
    .bind(last)
    .bind(batch)
    .execute(pool)
    .await
    .unwrap();
}

/// Reads three pages of 100, each after the one before, or fewer if the list ends.
async fn three_pages(database: &Database, filter: &Filter) -> Vec<Booking> {
    let mut all: Vec<Booking> = Vec::new();
    for _ in 0..3 {
        let after = all.last().map(|last| filter.cursor(last));
        all.extend(query::list(database, filter, after, 100).await.unwrap());
    }
    all
}

/// Returns a filter of each kind, with its name.
///
/// The filters by time match the last five seconds' bookings, however long ago these were made.
async fn filters(pool: &PgPool) -> Vec<(&'static str, Filter)> {
    let (created_after, expires_before): (DateTime<Utc>, DateTime<Utc>) = sqlx::query_as(
        "SELECT max(created_at) - interval '5 s', max(expires_at) - interval '5 s' FROM bookings",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    let of = Filter::default;
    let status = |status| Filter {
        status: Some(status),
        ..of()
    };
    vec![
        ("all", of()),
        (
            "show",
            Filter {
                show_id: Some(ShowId(1)),
                ..of()
            },
        ),
        (
            "user",
            Filter {
                user_name: Some("Alice".to_owned()),
                ..of()
            },
        ),
        (
            "reference",
            Filter {
                reference: Some("A".to_owned()),
                ..of()
            },
        ),
        ("pending", status(BookingStatus::Pending)),
        ("confirmed", status(BookingStatus::Confirmed)),
        ("failed", status(BookingStatus::Failed)),
        ("cancelled", status(BookingStatus::Cancelled)),
        (
            "created after",
            Filter {
                created_after: Some(created_after),
                ..of()
            },
        ),
        (
            "expires before",
            Filter {
                expires_before: Some(expires_before),
                ..of()
            },
        ),
    ]
}

/// Returns how many pages of the tables and their indexes have been read.
async fn pages_read(pool: &PgPool) -> i64 {
    execute(pool, "SELECT pg_stat_force_next_flush()").await;
    sqlx::query_scalar(
        "SELECT sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint
         FROM pg_statio_user_tables WHERE relname IN ('bookings', 'batches')",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Returns how many pages of the table and its indexes three pages of each list read.
async fn costs(bookings: i64, batch: i64) -> Vec<(&'static str, i64)> {
    let db = TestDatabase::new().await;
    fill(&db.pool, bookings, batch).await;
    // One connection, whose counters are reported before the next query.
    let database = connect(&db.url, 1).await.unwrap();
    let pool = database.pool.clone();
    let mut costs = Vec::new();
    for (name, filter) in filters(&pool).await {
        let before = pages_read(&pool).await;
        let found = three_pages(&database, &filter).await;
        assert!(found.len() >= 250, "{name}: {} found", found.len());
        costs.push((name, pages_read(&pool).await - before));
    }
    costs
}

/// Overdue holds count as failed, however many there are while no worker runs.
#[tokio::test(flavor = "multi_thread")]
async fn overdue_holds_do_not_make_the_list_of_failed_bookings_expensive() {
    let cost = async |overdue: i64| {
        let db = TestDatabase::new().await;
        sqlx::query(
            "INSERT INTO bookings (id, batch_id, show_id, user_name, number_of_seats, status, expires_at, extendable_until, created_at)
             OVERRIDING SYSTEM VALUE
             SELECT n, n, 1 + n % 10, 'Alice', 1, 'PENDING', now() - interval '1 hour', now(), now() - interval '2 hours'
             FROM generate_series(1, $1) AS n",
        )
        .bind(overdue)
        .execute(&db.pool)
        .await
        .unwrap();
        recount(&db.pool).await;
        let database = connect(&db.url, 1).await.unwrap();
        let pool = database.pool.clone();
        let mut costs = Vec::new();
        for show_id in [None, Some(ShowId(3))] {
            let filter = Filter {
                show_id,
                status: Some(BookingStatus::Failed),
                ..Filter::default()
            };
            let before = pages_read(&pool).await;
            let found = three_pages(&database, &filter).await;
            assert_eq!(found.len(), 300);
            assert!(found.is_sorted_by_key(|booking| booking.id));
            costs.push(pages_read(&pool).await - before);
        }
        costs
    };
    let (few, many) = (cost(20_000).await, cost(200_000).await);
    for (few, many) in few.into_iter().zip(many) {
        assert!(many <= few * 3 / 2 + 100, "{few}, {many}");
    }
}

/// Checks each filter by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_costs_the_same_however_many_bookings_there_are() {
    // A batch each, as if no two clients had booked at the same time; and as a hot sale makes them.
    for batch in [1, 100] {
        let few = costs(50_000, batch).await;
        let many = costs(1_000_000, batch).await;
        for ((name, few), (_, many)) in few.into_iter().zip(many) {
            println!(
                "{name}: {few} pages of 50,000 bookings, {many} of 1,000,000, in batches of {batch}"
            );
            assert!(many <= few * 3 / 2 + 100, "{name}: {few}, {many}");
        }
    }
}

/// In every order, each booking that matches is in the list once.
#[tokio::test]
async fn following_a_list_finds_each_booking_that_fits_once() {
    let db = TestDatabase::new().await;
    fill(&db.pool, 3000, 7).await;
    // Equal deadlines, and overdue holds that no worker has reached.
    execute(
        &db.pool,
        "UPDATE bookings SET expires_at = date_trunc('minute', expires_at) WHERE status = 'PENDING' AND id % 2 = 0
             AND date_trunc('minute', expires_at) > created_at;
         ",
    )
    .await;
    execute(
        &db.pool,
        "UPDATE bookings SET created_at = now() - interval '1 hour', expires_at = now() - interval '1 minute'
         WHERE status = 'PENDING' AND id % 5 = 0",
    )
    .await;
    recount(&db.pool).await;
    let all = query::list(&db.database, &Filter::default(), None, 5000)
        .await
        .unwrap();
    assert_eq!(all.len(), 3000);
    for (name, filter) in filters(&db.pool).await {
        let mut listed: Vec<Booking> = Vec::new();
        loop {
            let after = listed.last().map(|last| filter.cursor(last));
            let page = query::list(&db.database, &filter, after, 70).await.unwrap();
            if page.is_empty() {
                break;
            }
            listed.extend(page);
        }
        let by_order = |booking: &Booking| match filter.cursor(booking) {
            Cursor::Id(id) => (None, id),
            Cursor::Deadline(at, id) => (Some(at), id),
        };
        assert!(listed.is_sorted_by_key(by_order), "{name}");
        let mut expected: Vec<&Booking> = all
            .iter()
            .filter(|booking| fits(&filter, booking))
            .collect();
        expected.sort_by_key(|booking| by_order(booking));
        let ids = |bookings: &[&Booking]| bookings.iter().map(|b| b.id).collect::<Vec<_>>();
        assert!(!expected.is_empty(), "{name}");
        assert_eq!(
            ids(&listed.iter().collect::<Vec<_>>()),
            ids(&expected),
            "{name}"
        );
    }
}

fn fits(filter: &Filter, booking: &Booking) -> bool {
    filter.show_id.is_none_or(|id| booking.show_id == id)
        && filter.status.is_none_or(|status| booking.status == status)
        && filter
            .user_name
            .as_ref()
            .is_none_or(|name| booking.user_name == *name)
        && (filter.reference.is_none() || filter.reference == booking.reference)
        && filter
            .created_after
            .is_none_or(|at| booking.created_at > at)
        && filter
            .expires_before
            .is_none_or(|at| booking.status == BookingStatus::Pending && booking.expires_at < at)
}
