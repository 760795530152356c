//! Expire: fail the holds that have run out and give their seats back.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, PgPool};

use super::{Booking, BookingStatus, Effect, query};
use crate::{postgres, show};

/// What expiring a set of bookings came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many bookings failed.
    pub expired: usize,
    /// The earliest deadline of those that are still held; none when all are resolved.
    pub next_deadline: Option<DateTime<Utc>>,
}

/// Fails those of the bookings that are held past their deadline, and gives their seats back, in one
/// transaction. Bookings that are resolved, not yet due or unknown stay as they are, so a repeat does nothing.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn expire(pool: &PgPool, booking_ids: &[i64]) -> Result<Outcome, postgres::Error> {
    postgres::retry(async || {
        let mut tx = pool.begin().await?;
        let outcome = expire_in(&mut tx, booking_ids).await?;
        postgres::commit(tx).await?;
        Ok(outcome)
    })
    .await
}

async fn expire_in(tx: &mut PgConnection, booking_ids: &[i64]) -> Result<Outcome, postgres::Error> {
    let show_ids = query::show_ids(tx, booking_ids).await?;
    show::lock(tx, &show_ids).await?;
    let query::Locked {
        mut bookings,
        locked_at,
    } = query::lock(tx, booking_ids).await?;
    let Some(now) = locked_at else {
        return Ok(Outcome::default());
    };
    let overdue = expire_each(&mut bookings, now);
    let freed = fail(tx, &overdue, now).await?;
    show::add_available_seats(tx, &freed).await?;
    Ok(Outcome {
        expired: overdue.len(),
        next_deadline: bookings
            .values()
            .filter(|booking| booking.status == BookingStatus::Pending)
            .map(|booking| booking.expires_at)
            .min(),
    })
}

/// How many overdue holds of a show one batch reclaims at most: it bounds how long the show stays locked. What is
/// left is reclaimed by the next one.
const MAX_RECLAIMED: i64 = 10_000;

/// Fails the oldest overdue holds of shows whose rows are locked, until at least as many seats of each are free as it
/// lacks, or no such hold is left. Returns the seats freed of each show; the caller adds them to its counter.
///
/// So a show never looks sold out just because no worker has come by.
///
/// # Errors
///
/// [`postgres::Error`].
pub(super) async fn reclaim(
    tx: &mut PgConnection,
    lacking_seats: &BTreeMap<i64, i64>,
    now: DateTime<Utc>,
) -> Result<BTreeMap<i64, i32>, postgres::Error> {
    let mut ids = Vec::new();
    for (show_id, lacking) in lacking_seats {
        // Each hold has at least one seat, so as many holds as seats are enough.
        let of_show = sqlx::query_scalar!(
            "SELECT id FROM bookings
             WHERE show_id = $1 AND status = 'PENDING' AND expires_at <= $2
             ORDER BY expires_at LIMIT $3",
            show_id,
            now,
            (*lacking).min(MAX_RECLAIMED),
        )
        .fetch_all(&mut *tx)
        .await?;
        ids.extend(of_show);
    }
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    // All at once, so that they are locked in the order of their ids.
    let mut bookings = query::lock(tx, &ids).await?.bookings;
    let overdue = expire_each(&mut bookings, now);
    fail(tx, &overdue, now).await
}

/// Expires those that are due, and returns them. Pure.
fn expire_each(bookings: &mut BTreeMap<i64, Booking>, now: DateTime<Utc>) -> Vec<Booking> {
    bookings
        .values_mut()
        .filter_map(|booking| (booking.expire(now) == Effect::Changed).then(|| booking.clone()))
        .collect()
}

/// Writes the failure of locked, overdue holds. Returns the seats freed of each show.
async fn fail(
    tx: &mut PgConnection,
    overdue: &[Booking],
    now: DateTime<Utc>,
) -> Result<BTreeMap<i64, i32>, postgres::Error> {
    let ids: Vec<i64> = overdue.iter().map(|booking| booking.id).collect();
    let updated = sqlx::query!(
        "UPDATE bookings SET status = 'FAILED', resolved_at = $2
         WHERE id = ANY($1) AND status = 'PENDING' AND expires_at <= $2",
        &ids,
        now,
    )
    .execute(tx)
    .await?
    .rows_affected();
    postgres::expect_rows("failed bookings", ids.len(), updated)?;

    let mut freed = BTreeMap::new();
    for booking in overdue {
        *freed.entry(booking.show_id).or_default() += booking.number_of_seats;
    }
    Ok(freed)
}

/// At most `limit` holds that have been overdue for longer than `grace`, the oldest first: their job is late or
/// was lost.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn find_overdue(
    pool: &PgPool,
    grace: TimeDelta,
    limit: usize,
) -> Result<Vec<i64>, postgres::Error> {
    let grace_seconds = grace.as_seconds_f64();
    let ids = sqlx::query_scalar!(
        "SELECT id FROM bookings
         WHERE status = 'PENDING' AND expires_at <= now() - make_interval(secs => $1)
         ORDER BY expires_at LIMIT $2",
        grace_seconds,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )
    .fetch_all(pool)
    .await?;
    Ok(ids)
}
