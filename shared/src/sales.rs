//! How the sale goes, for people who watch it: reads of what changes while they look.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

use crate::{postgres::Error, timestamp::Timestamp};

/// A show and where its seats are.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShowSeats {
    /// Its identity.
    pub id: i64,
    /// What people see.
    pub name: String,
    /// When it begins.
    #[serde(rename = "startTime")]
    pub starts_at: DateTime<Utc>,
    /// Seats in all: the sum of the three.
    pub seats: i64,
    /// Seats to be had; those of overdue holds among them, whether or not their job has come.
    pub available: i64,
    /// Seats of holds.
    pub held: i64,
    /// Seats that are sold.
    pub confirmed: i64,
}

/// The shows with the newest bookings, the last one first, and after them the newest shows; so many at most. It reads
/// their holds.
///
/// # Errors
///
/// [`Error`].
pub async fn shows(pool: &PgPool, at_most: i64) -> Result<Vec<ShowSeats>, Error> {
    // Ids come in order, so that the newest bookings are found at their end.
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
               SELECT coalesce(sum(number_of_seats) FILTER (WHERE expires_at > now()), 0) AS held,
                      coalesce(sum(number_of_seats) FILTER (WHERE expires_at <= now()), 0) AS overdue
               FROM bookings
               WHERE show_id = shows.id AND resolved_at IS NULL) AS holds
           ORDER BY newest DESC NULLS LAST, shows.id DESC"#,
        at_most,
    )
    .fetch_all(pool)
    .await?;
    Ok(shows)
}

/// Counts of holds end here: this many may be more.
pub const MAX_COUNTED: i64 = 10_000;

/// The sale as a whole.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pulse {
    /// When, on the database's clock. Told beside it.
    #[serde(skip)]
    pub at: DateTime<Utc>,
    /// The id of the newest booking; ids ascend by about one each.
    pub newest_booking: i64,
    /// Holds that run out within 30 s; counted up to [`MAX_COUNTED`].
    pub holds_ending_soon: i64,
    /// Holds whose deadline is over, and whose seats are not back yet; counted up to [`MAX_COUNTED`].
    pub overdue_holds: i64,
    /// For how long the oldest of them is overdue, in seconds; 0 when there is none.
    pub longest_overdue_seconds: f64,
    /// How long after their deadlines holds failed, of the 1,000 newest ones that failed in the last five minutes, in seconds: the median;
    /// none when none did.
    pub expiry_lag_median_seconds: Option<f64>,
    /// The same: 99 of 100 were sooner.
    pub expiry_lag_p99_seconds: Option<f64>,
}

/// How it is now.
///
/// # Errors
///
/// [`Error`].
pub async fn pulse(pool: &PgPool) -> Result<Pulse, Error> {
    let pulse = sqlx::query_as!(
        Pulse,
        r#"SELECT
               now() AS "at!",
               coalesce((SELECT id FROM bookings ORDER BY id DESC LIMIT 1), 0) AS "newest_booking!",
               (SELECT count(*) FROM (SELECT 1 FROM bookings WHERE resolved_at IS NULL AND id > 0
                    AND expires_at > now() AND expires_at <= now() + interval '30 seconds' LIMIT $1) AS counted) AS "holds_ending_soon!",
               (SELECT count(*) FROM (SELECT 1 FROM bookings WHERE resolved_at IS NULL AND id > 0
                    AND expires_at <= now() LIMIT $1) AS counted) AS "overdue_holds!",
               coalesce((SELECT extract(epoch FROM greatest(now() - expires_at, interval '0'))::float8 FROM bookings
                    WHERE resolved_at IS NULL AND id > 0 ORDER BY expires_at LIMIT 1), 0) AS "longest_overdue_seconds!",
               percentile_cont(0.5)  WITHIN GROUP (ORDER BY late) AS expiry_lag_median_seconds,
               percentile_cont(0.99) WITHIN GROUP (ORDER BY late) AS expiry_lag_p99_seconds
           FROM (SELECT extract(epoch FROM resolved_at - expires_at)::float8 AS late
                 FROM (SELECT resolved_at, expires_at FROM bookings WHERE status = 'FAILED'
                       ORDER BY id DESC LIMIT 1000) AS newest
                 WHERE resolved_at > now() - interval '5 minutes') AS failed"#,
        MAX_COUNTED,
    )
    .fetch_one(pool)
    .await?;
    Ok(pulse)
}
