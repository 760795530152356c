//! Finding overdue holds.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgExecutor, PgPool};

use crate::{
    id::{BookingId, ShowId},
    postgres, show,
};

/// Maximum number of holds that one transaction expires besides those that its job names, which
/// bounds how long it takes.
pub(super) const MAX_AT_ONCE: i64 = 1000;

/// Finds the holds of a show that have been overdue for longer than `grace`, oldest first.
///
/// It returns at most [`MAX_AT_ONCE`], and locks nothing.
pub(super) async fn find_oldest(
    pool: &PgPool,
    show_id: ShowId,
    grace: TimeDelta,
) -> Result<Vec<BookingId>, postgres::Error> {
    let of_show = BTreeMap::from([(show_id, MAX_AT_ONCE)]);
    find_overdue(pool, &of_show, Since::Longer(grace)).await
}

/// Bound on the deadlines of the overdue holds to find.
#[derive(Debug, Clone, Copy)]
pub(super) enum Since {
    /// Deadlines at this instant or before.
    Instant(DateTime<Utc>),
    /// Deadlines that passed longer ago than this, on the database's clock.
    Longer(TimeDelta),
}

/// Finds overdue holds, oldest first, up to a maximum for each show.
pub(super) async fn find_overdue(
    database: impl PgExecutor<'_>,
    of_each: &BTreeMap<ShowId, i64>,
    since: Since,
) -> Result<Vec<BookingId>, postgres::Error> {
    let (show_ids, limits): (Vec<ShowId>, Vec<i64>) = of_each.iter().unzip();
    if show_ids.is_empty() {
        return Ok(Vec::new());
    }
    let (until, grace) = match since {
        Since::Instant(until) => (Some(until), 0.0),
        Since::Longer(grace) => (None, grace.as_seconds_f64()),
    };
    let ids = sqlx::query_scalar!(
        r#"SELECT id AS "id: BookingId" FROM unnest($1::bigint[], $2::bigint[]) AS of_show (show_id, at_most)
         CROSS JOIN LATERAL (
             SELECT bookings.id, batches.expires_at
             FROM batches CROSS JOIN LATERAL (
                 SELECT * FROM bookings
                 WHERE bookings.show_id = batches.show_id AND bookings.id BETWEEN first_id AND batches.id OFFSET 0) AS bookings
             WHERE is_extended = is_extension AND status = 'PENDING' AND batches.show_id = of_show.show_id AND has_held
               AND batches.expires_at <= coalesce($3, now() - make_interval(secs => $5))
               AND ($4::bigint IS NULL OR batches.show_id = $4)
             ORDER BY batches.expires_at LIMIT of_show.at_most) AS hold
         ORDER BY expires_at"#,
        &show_ids as &[ShowId],
        &limits,
        until,
        show::only(&show_ids) as Option<ShowId>,
        grace,
    )
    .fetch_all(database)
    .await?;
    Ok(ids)
}

/// Finds the shows with a hold that has been overdue for longer than `grace`.
///
/// The job of such a hold should have expired it.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn find_overdue_shows(
    pool: &PgPool,
    grace: TimeDelta,
) -> Result<Vec<ShowId>, postgres::Error> {
    // Ordered by deadline, so that only overdue holds are read.
    let ids = sqlx::query_scalar!(
        r#"SELECT DISTINCT show_id AS "show_id: ShowId" FROM (
             SELECT show_id FROM batches
             WHERE has_held AND id > 0 AND expires_at <= now() - make_interval(secs => $1)
             ORDER BY expires_at) AS overdue
         ORDER BY show_id"#,
        grace.as_seconds_f64(),
    )
    .fetch_all(pool)
    .await?;
    Ok(ids)
}
