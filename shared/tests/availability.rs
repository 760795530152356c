//! Tests that every reader sees the seats of overdue holds as available, before a worker has run.

use shared::{booking::expire, postgres::Database, sales, show};
use testing::{
    TestDatabase, a_hold, a_show, available_seats, connect, count, execute, job, let_pass, recount,
};

#[tokio::test]
async fn seats_of_overdue_holds_are_available_to_every_reader() {
    let db = TestDatabase::new().await;
    let (show, other) = (a_show(&db.pool, 10).await, a_show(&db.pool, 10).await);
    let late = a_hold(&db.pool, &show, 4).await;
    a_hold(&db.pool, &other, 1).await;
    let_pass(&db.pool, 200).await;
    a_hold(&db.pool, &show, 3).await;
    let seen = async || {
        let found = show::find(&db.pool, show.id).await.unwrap().unwrap();
        let listed = show::list(&db.database, &show::Filter::default(), None, 10)
            .await
            .unwrap();
        assert_eq!(listed[0], found);
        let sold = sales::shows(&db.pool, 10).await.unwrap();
        let sold = sold.iter().find(|sold| sold.id == show.id.0).unwrap();
        assert_eq!(
            (sold.available, sold.held, sold.confirmed),
            (found.available_seats.into(), 3, 0)
        );
        (
            found.available_seats,
            listed[1].available_seats,
            found.version(),
        )
    };
    let before = seen().await;
    assert_eq!((before.0, before.1), (7, 10));
    assert_eq!(available_seats(&db.pool, show.id).await, 3);

    expire::expire(&mut db.session(), &job(&[late.id]))
        .await
        .unwrap();
    assert_eq!(available_seats(&db.pool, show.id).await, 7);
    assert_eq!(
        seen().await,
        before,
        "a worker changes nothing that readers see"
    );
}

/// Returns how many pages of tables and indexes are read for a show with this many overdue holds.
async fn cost(database: &Database, holds: i32) -> i64 {
    let pool = &database.pool;
    let show = a_show(pool, 1_000_000).await;
    sqlx::query(
        "INSERT INTO bookings (id, batch_id, show_id, user_name, number_of_seats, status, expires_at, extendable_until, created_at)
         OVERRIDING SYSTEM VALUE
         SELECT id, id, $1, 'user ' || id, 1, 'PENDING', now() - interval '1 hour', now(), now() - interval '2 hours'
         FROM (SELECT nextval('bookings_id_seq') AS id FROM generate_series(1, $2)) AS new",
    )
    .bind(show.id)
    .bind(holds)
    .execute(pool)
    .await
    .unwrap();
    recount(pool).await;
    sqlx::query("UPDATE shows SET available_seats = seats - $2 WHERE id = $1")
        .bind(show.id)
        .bind(holds)
        .execute(pool)
        .await
        .unwrap();
    let read = async || {
        execute(pool, "SELECT pg_stat_force_next_flush()").await;
        let sql =
            "SELECT sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint
                   FROM pg_statio_user_tables WHERE schemaname = 'public'";
        count(pool, sql).await
    };
    let before = read().await;
    let found = show::find(pool, show.id).await.unwrap().unwrap();
    let listed = show::list(
        database,
        &show::Filter::default(),
        Some(show::Cursor::Id((show.id.0 - 1).into())),
        1,
    )
    .await
    .unwrap();
    assert_eq!(listed[0], found);
    assert_eq!(found.available_seats, 1_000_000 - holds + holds.min(1000));
    read().await - before
}

/// Runs in a database that was never analyzed.
#[tokio::test]
async fn a_show_costs_the_same_to_read_however_many_holds_are_overdue() {
    let db = TestDatabase::new().await;
    // One connection, whose counters are reported before the next query.
    let database = connect(&db.url, 1).await.unwrap();
    let none = cost(&database, 0).await;
    let few = cost(&database, 10_000).await;
    let many = cost(&database, 100_000).await;
    println!("{none}, {few} and {many} pages");
    assert!(none <= 30, "{none}");
    assert!(many <= few + 20, "{few}, {many}");
}
