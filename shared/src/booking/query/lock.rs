//! Locking bookings.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::row::{Row, by_id};
use crate::{
    booking::rules::Booking,
    id::{BookingId, ShowId},
    metadata::Metadata,
    postgres,
    timestamp::Timestamp,
};

/// Bookings whose rows are locked until the transaction ends.
pub(in crate::booking) struct Locked {
    /// Bookings that exist, by id.
    pub bookings: BTreeMap<BookingId, Booking>,
    /// The database's clock, read when all of them were locked.
    pub locked_at: DateTime<Utc>,
}

impl Locked {
    /// Returns `None` if there are no rows.
    fn new(rows: Vec<Row>) -> Result<Option<Self>, postgres::Error> {
        let Some(locked_at) = rows.iter().map(|row| row.read_at).max() else {
            return Ok(None);
        };
        Ok(Some(Self {
            locked_at,
            bookings: by_id(rows)?,
        }))
    }
}

/// Locks these bookings in the order of their ids until the transaction ends, and reads the clock.
///
/// It returns `None` if none of them exists. If a show is given, only bookings of that show exist.
/// Where the shows' counters change too, their rows are locked afterwards.
pub(in crate::booking) async fn lock(
    tx: &mut PgConnection,
    ids: &[BookingId],
    show_id: Option<ShowId>,
) -> Result<Option<Locked>, postgres::Error> {
    // The clock is read after the locks are held, as in `show::lock`.
    let rows = sqlx::query_as!(
        Row,
        r#"WITH locked AS MATERIALIZED (
               SELECT id, show_id, batch_id, user_name, number_of_seats, status, expires_at, is_extended, extendable_until, created_at, resolved_at,
                      released_seats, from_id, reference, metadata
               FROM bookings WHERE id = ANY($1) AND ($2::bigint IS NULL OR show_id = $2)
               ORDER BY id FOR NO KEY UPDATE)
           SELECT id AS "id: BookingId", show_id AS "show_id: ShowId", batch_id AS "batch_id: BookingId", user_name, number_of_seats, status,
                  expires_at AS "expires_at: Timestamp", is_extended, extendable_until AS "extendable_until: Timestamp", created_at AS "created_at: Timestamp",
                  resolved_at AS "resolved_at: Timestamp", released_seats, from_id AS "from_id: BookingId",
                  reference, metadata::text AS "metadata: Metadata", clock_timestamp() AS "read_at!"
           FROM locked"#,
        ids as &[BookingId],
        show_id as Option<ShowId>,
    )
    .fetch_all(tx)
    .await?;
    Locked::new(rows)
}

/// Locks like [`lock`], with the batches of the bookings, but skips those of which another
/// transaction has locked either, and so never waits.
///
/// It returns `None` also if all of them are locked.
pub(in crate::booking) async fn lock_free(
    tx: &mut PgConnection,
    ids: &[BookingId],
    show_id: Option<ShowId>,
) -> Result<Option<Locked>, postgres::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"WITH locked AS MATERIALIZED (
               SELECT bookings.id, bookings.show_id, batch_id, user_name, number_of_seats, status, bookings.expires_at, is_extended,
                      extendable_until, created_at, resolved_at, released_seats, from_id, reference, metadata
               FROM bookings JOIN batches ON batches.show_id = bookings.show_id AND batches.id = batch_id AND NOT is_extension
               WHERE bookings.id = ANY($1) AND ($2::bigint IS NULL OR bookings.show_id = $2)
               ORDER BY bookings.id FOR NO KEY UPDATE SKIP LOCKED)
           SELECT id AS "id: BookingId", show_id AS "show_id: ShowId", batch_id AS "batch_id: BookingId", user_name, number_of_seats, status,
                  expires_at AS "expires_at: Timestamp", is_extended, extendable_until AS "extendable_until: Timestamp", created_at AS "created_at: Timestamp",
                  resolved_at AS "resolved_at: Timestamp", released_seats, from_id AS "from_id: BookingId",
                  reference, metadata::text AS "metadata: Metadata", clock_timestamp() AS "read_at!"
           FROM locked"#,
        ids as &[BookingId],
        show_id as Option<ShowId>,
    )
    .fetch_all(tx)
    .await?;
    Locked::new(rows)
}
