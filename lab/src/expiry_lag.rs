//! Lag of expiry: how late holds failed.

use serde::Serialize;
use sqlx::PgPool;

/// Expiry lag: how long after their deadlines holds failed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "each names its unit")]
pub(crate) struct Lag {
    /// Median, in seconds.
    pub(crate) median_seconds: f64,
    /// 99th percentile, in seconds.
    pub(crate) p99_seconds: f64,
    /// Maximum, in seconds.
    pub(crate) longest_seconds: f64,
}

/// Returns the expiry lag of all holds of these shows that ever failed; `None` if none did.
///
/// It reads all bookings of these shows.
pub(crate) async fn expiry_lag(pool: &PgPool, show_ids: &[i64]) -> sqlx::Result<Option<Lag>> {
    // Checked when it runs: the metadata of queries that are checked when they compile is of `shared`.
    let row: (Option<f64>, Option<f64>, Option<f64>) = sqlx::query_as(
        "SELECT percentile_cont(0.5)  WITHIN GROUP (ORDER BY late) AS median,
                percentile_cont(0.99) WITHIN GROUP (ORDER BY late) AS p99,
                max(late) AS longest
         FROM (SELECT extract(epoch FROM resolved_at - expires_at)::float8 AS late
               FROM bookings WHERE show_id = ANY($1) AND status = 'FAILED') AS failed",
    )
    .bind(show_ids)
    .fetch_one(pool)
    .await?;
    Ok(match row {
        (Some(median_seconds), Some(p99_seconds), Some(longest_seconds)) => Some(Lag {
            median_seconds,
            p99_seconds,
            longest_seconds,
        }),
        _ => None,
    })
}
