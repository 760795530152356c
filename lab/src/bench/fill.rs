//! Fills a database with past bookings.

use anyhow::Context;
use sqlx::PgPool;

/// Creates 100 shows, and bookings of them that are all confirmed or held for a day: one in five is
/// held.
///
/// Consecutive bookings are of one batch, `batch` of them. The count is a multiple of it.
pub(super) async fn fill(pool: &PgPool, bookings: i64, batch: i64) -> anyhow::Result<()> {
    let mut connection = pool.acquire().await?;
    sqlx::raw_sql("SET statement_timeout = 0; SET synchronous_commit = off")
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO shows (name, starts_at, seats, available_seats)
         SELECT 'Show ' || n, now(), 1000000, 1000000 - $1 / 100
         FROM generate_series(1, 100) AS n",
    )
    .bind(bookings)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO bookings (id, batch_id, show_id, user_name, number_of_seats, status, expires_at, extendable_until,
                               created_at, resolved_at) OVERRIDING SYSTEM VALUE
         SELECT n, (n - 1) / $2 * $2 + $2, 1 + (n - 1) / $2 % 100, 'user ' || n, 1,
                CASE WHEN n % 5 = 0 THEN 'PENDING' ELSE 'CONFIRMED' END,
                made_at + interval '1 day', made_at + interval '1 day', made_at,
                CASE WHEN n % 5 > 0 THEN made_at + interval '1 second' END
         FROM generate_series(1, $1) AS n,
              LATERAL (SELECT now() - ($1 - n) * interval '1 ms' AS made_at) AS times",
    )
    .bind(bookings)
    .bind(batch)
    .execute(&mut *connection)
    .await
    .context("cannot create bookings")?;
    let statements = [
        "SELECT setval('bookings_id_seq', (SELECT max(id) FROM bookings))",
        "INSERT INTO batches (show_id, id, first_id, expires_at, held, held_seats, confirmed, has_held, has_confirmed)
         SELECT show_id, batch_id, min(id), max(expires_at), count(*) FILTER (WHERE status = 'PENDING'),
                count(*) FILTER (WHERE status = 'PENDING'), count(*) FILTER (WHERE status = 'CONFIRMED'),
                bool_or(status = 'PENDING'), bool_or(status = 'CONFIRMED')
         FROM bookings GROUP BY show_id, batch_id",
        "VACUUM (ANALYZE)",
        "CHECKPOINT",
    ];
    for statement in statements {
        sqlx::query(statement)
            .execute(&mut *connection)
            .await
            .context("cannot create batches")?;
    }
    // Not returned to the pool, because of this session's settings.
    connection.close().await?;
    Ok(())
}
