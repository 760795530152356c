//! Progress of the sale: queries for people who watch it while it changes.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{AssertSqlSafe, FromRow, PgPool};

use crate::{
    booking::query,
    postgres::{Database, Error},
    timestamp::Timestamp,
};

/// Show, with how many of its seats are available, held and confirmed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShowSeats {
    /// Id of the show.
    pub id: i64,
    /// Display name.
    pub name: String,
    /// Time at which the show begins.
    #[serde(rename = "startTime")]
    pub starts_at: DateTime<Utc>,
    /// Total number of seats: `available` + `held` + `confirmed`.
    pub seats: i64,
    /// Available seats, including those of overdue holds that no job has expired yet.
    pub available: i64,
    /// Seats of holds.
    pub held: i64,
    /// Seats of confirmed bookings.
    pub confirmed: i64,
}

/// Lists the shows with the newest bookings, last one first, then the newest shows.
///
/// It returns at most `at_most` shows, and reads their holds.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn shows(pool: &PgPool, at_most: i64) -> Result<Vec<ShowSeats>, Error> {
    // Ids ascend, so the newest bookings are at the end of their index.
    let shows = sqlx::query_as!(
        ShowSeats,
        r#"WITH sold AS (
               SELECT show_id, max(id) AS newest FROM (
                   SELECT id, show_id FROM bookings ORDER BY id DESC LIMIT 2000) AS newest
               GROUP BY show_id),
           shown AS (
               SELECT id, max(newest) AS newest FROM (
                   (SELECT show_id AS id, newest FROM sold ORDER BY newest DESC LIMIT $1)
                   UNION ALL
                   (SELECT id, NULL FROM shows ORDER BY id DESC LIMIT $1)) AS either
               GROUP BY id ORDER BY max(newest) DESC NULLS LAST, id DESC LIMIT $1)
           SELECT shows.id, name, starts_at AS "starts_at: Timestamp", seats::bigint AS "seats!",
                  available_seats + overdue AS "available!", held AS "held!",
                  seats - available_seats - overdue - held AS "confirmed!"
           FROM shown JOIN shows USING (id)
           CROSS JOIN LATERAL (
               SELECT coalesce(sum(held_seats) FILTER (WHERE expires_at > now()), 0) AS held,
                      coalesce(sum(held_seats) FILTER (WHERE expires_at <= now()), 0) AS overdue
               FROM batches
               WHERE show_id = shows.id AND has_held) AS holds
           ORDER BY newest DESC NULLS LAST, shows.id DESC"#,
        at_most,
    )
    .fetch_all(pool)
    .await?;
    Ok(shows)
}

/// Limit of counts of holds: a count of this many may stand for more.
pub const MAX_COUNTED: i64 = 10_000;

/// State of the sale as a whole.
#[derive(Debug, Clone, Serialize, FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Pulse {
    /// Time of the query, on the database's clock. It is reported beside this struct, not in it.
    #[serde(skip)]
    pub at: DateTime<Utc>,
    /// Id of the newest booking. Ids ascend by about one for each booking.
    pub newest_booking: i64,
    /// Number of holds that expire within 30 s, counted up to [`MAX_COUNTED`].
    pub holds_ending_soon: i64,
    /// Number of holds past their deadline whose seats are not back yet, counted up to
    /// [`MAX_COUNTED`].
    pub overdue_holds: i64,
    /// How long the oldest of the overdue holds has been overdue, in seconds; 0 when there is none.
    pub longest_overdue_seconds: f64,
    /// Median expiry lag in seconds: how long after their deadlines holds failed; `None` if none
    /// did.
    ///
    /// It covers those of the 1,000 newest failed bookings that failed in the last five minutes.
    pub expiry_lag_median_seconds: Option<f64>,
    /// 99th percentile of the expiry lag in seconds, of the same holds as the median.
    pub expiry_lag_p99_seconds: Option<f64>,
}

/// Reads the state of the sale as it is now.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn pulse(database: &Database) -> Result<Pulse, Error> {
    // Not checked when this is compiled, because Citus needs another statement.
    let sql = format!(
        "SELECT
               now() AS at,
               coalesce((SELECT id FROM bookings ORDER BY id DESC LIMIT 1), 0) AS newest_booking,
               (SELECT least(coalesce(sum(held), 0), $1) FROM (SELECT held FROM batches WHERE has_held AND id > 0
                    AND expires_at > now() AND expires_at <= now() + interval '30 seconds' LIMIT $1) AS counted) AS holds_ending_soon,
               (SELECT least(coalesce(sum(held), 0), $1) FROM (SELECT held FROM batches WHERE has_held AND id > 0
                    AND expires_at <= now() LIMIT $1) AS counted) AS overdue_holds,
               coalesce((SELECT extract(epoch FROM greatest(now() - expires_at, interval '0'))::float8 FROM batches
                    WHERE has_held AND id > 0 ORDER BY expires_at LIMIT 1), 0) AS longest_overdue_seconds,
               percentile_cont(0.5)  WITHIN GROUP (ORDER BY late) AS expiry_lag_median_seconds,
               percentile_cont(0.99) WITHIN GROUP (ORDER BY late) AS expiry_lag_p99_seconds
           FROM (SELECT extract(epoch FROM resolved_at - expires_at)::float8 AS late
                 FROM (SELECT resolved_at, bookings.expires_at
                       FROM {in_batches}
                       WHERE has_failed AND batches.id > 0 AND status = 'FAILED'
                       ORDER BY batches.id DESC, bookings.id DESC LIMIT 1000) AS newest
                 WHERE resolved_at > now() - interval '5 minutes') AS failed",
        in_batches = query::in_batches(database.engine),
    );
    let pulse = sqlx::query_as(AssertSqlSafe(sql))
        .bind(MAX_COUNTED)
        .fetch_one(&database.pool)
        .await?;
    Ok(pulse)
}
