//! Queries that find, list and lock bookings.

mod list;
mod lock;
mod row;

use std::collections::BTreeMap;

use sqlx::{PgConnection, PgPool};

pub(crate) use self::list::in_batches;
pub use self::list::{Cursor, Filter, list};
pub(super) use self::lock::{Locked, lock, lock_free};
use self::row::{Row, by_id, view};
use super::rules::Booking;
use crate::{
    id::{BookingId, ShowId},
    metadata::Metadata,
    postgres::{self, Session},
    timestamp::{self, Timestamp},
};

/// Finds a booking, as of the database's clock. If a show is given, only in that show.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn find(
    pool: &PgPool,
    id: BookingId,
    show_id: Option<ShowId>,
) -> Result<Option<Booking>, postgres::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: BookingId", show_id AS "show_id: ShowId", batch_id AS "batch_id: BookingId", user_name, number_of_seats, status,
                  expires_at AS "expires_at: Timestamp", is_extended, extendable_until AS "extendable_until: Timestamp", created_at AS "created_at: Timestamp",
                  resolved_at AS "resolved_at: Timestamp", released_seats, from_id AS "from_id: BookingId",
                  reference, metadata::text AS "metadata: Metadata", now() AS "read_at!"
           FROM bookings WHERE id = $1 AND ($2::bigint IS NULL OR show_id = $2)"#,
        id as BookingId,
        show_id as Option<ShowId>,
    )
    .fetch_optional(pool)
    .await?
    .map(view)
    .transpose()
}

/// Finds those of these bookings that exist, ordered by id, as of the database's clock.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn find_many(pool: &PgPool, ids: &[BookingId]) -> Result<Vec<Booking>, postgres::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: BookingId", show_id AS "show_id: ShowId", batch_id AS "batch_id: BookingId", user_name, number_of_seats, status,
                  expires_at AS "expires_at: Timestamp", is_extended, extendable_until AS "extendable_until: Timestamp", created_at AS "created_at: Timestamp",
                  resolved_at AS "resolved_at: Timestamp", released_seats, from_id AS "from_id: BookingId",
                  reference, metadata::text AS "metadata: Metadata", now() AS "read_at!"
           FROM bookings WHERE id = ANY($1) ORDER BY id"#,
        ids as &[BookingId],
    )
    .fetch_all(pool)
    .await?
    .into_iter()
    .map(view)
    .collect()
}

/// Finds a booking of this show in a transaction, as of the database's clock.
pub(super) async fn find_in(
    tx: &mut PgConnection,
    id: BookingId,
    show_id: ShowId,
) -> Result<Option<Booking>, postgres::Error> {
    let mut found = find_many_in(tx, &[id], Some(show_id)).await?;
    let now = timestamp::now(tx).await?;
    Ok(found.remove(&id).map(|booking| booking.as_of(now)))
}

/// Finds those of these bookings that exist, by id, as they are stored.
///
/// If a show is given, it finds only bookings of that show.
pub(super) async fn find_many_in(
    tx: &mut PgConnection,
    ids: &[BookingId],
    show_id: Option<ShowId>,
) -> Result<BTreeMap<BookingId, Booking>, postgres::Error> {
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: BookingId", show_id AS "show_id: ShowId", batch_id AS "batch_id: BookingId", user_name, number_of_seats, status,
                  expires_at AS "expires_at: Timestamp", is_extended, extendable_until AS "extendable_until: Timestamp", created_at AS "created_at: Timestamp",
                  resolved_at AS "resolved_at: Timestamp", released_seats, from_id AS "from_id: BookingId",
                  reference, metadata::text AS "metadata: Metadata", now() AS "read_at!"
           FROM bookings WHERE id = ANY($1) AND ($2::bigint IS NULL OR show_id = $2)"#,
        ids as &[BookingId],
        show_id as Option<ShowId>,
    )
    .fetch_all(tx)
    .await
    .map_err(postgres::Error::from)
    .and_then(by_id)
}

/// Returns the show of each of these bookings; `None` where the booking does not exist.
///
/// No lock is needed: a booking never moves to another show.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn locate(
    session: &Session,
    ids: &[BookingId],
) -> Result<Vec<Option<ShowId>>, postgres::Error> {
    let rows = postgres::in_time(async {
        let found = sqlx::query!(r#"SELECT id AS "id: BookingId", show_id AS "show_id: ShowId" FROM bookings WHERE id = ANY($1)"#, ids as &[BookingId]);
        Ok(found.fetch_all(session.pool()).await?)
    })
    .await?;
    let shows: BTreeMap<BookingId, ShowId> =
        rows.into_iter().map(|row| (row.id, row.show_id)).collect();
    Ok(ids.iter().map(|id| shows.get(id).copied()).collect())
}
