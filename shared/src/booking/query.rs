//! Reading bookings.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgPool, QueryBuilder};

use super::{Booking, BookingStatus, Refusal};
use crate::postgres;

/// A row of `bookings`. Its status is text until it is parsed.
#[derive(FromRow)]
pub(super) struct Row {
    pub id: i64,
    pub show_id: i64,
    pub user_name: String,
    pub number_of_seats: i32,
    pub status: String,
    pub expires_at: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub resolved_at: Option<DateTime<Utc>>,
    /// The database's clock: when the statement began, or when this row was locked.
    pub read_at: DateTime<Utc>,
}

impl TryFrom<Row> for Booking {
    type Error = postgres::Error;

    fn try_from(row: Row) -> Result<Self, postgres::Error> {
        Ok(Self {
            id: row.id,
            show_id: row.show_id,
            user_name: row.user_name,
            number_of_seats: row.number_of_seats,
            status: row
                .status
                .parse()
                .map_err(|unknown| sqlx::Error::Decode(Box::new(unknown)))?,
            expires_at: row.expires_at,
            created_at: row.created_at,
            resolved_at: row.resolved_at,
        })
    }
}

/// The booking as a reader sees it.
fn view(row: Row) -> Result<Booking, postgres::Error> {
    let read_at = row.read_at;
    Ok(Booking::try_from(row)?.as_of(read_at))
}

/// Which bookings to list. What is `None` does not restrict.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this show.
    pub show_id: Option<i64>,
    /// In this status, as readers see it: see [`Booking::as_of`].
    pub status: Option<BookingStatus>,
    /// Of this user.
    pub user_name: Option<String>,
}

/// Finds a booking, as of the database's clock.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn find(pool: &PgPool, id: i64) -> Result<Option<Booking>, postgres::Error> {
    sqlx::query_as!(
        Row,
        r#"SELECT id, show_id, user_name, number_of_seats, status, expires_at, created_at, resolved_at,
                  now() AS "read_at!"
           FROM bookings WHERE id = $1"#,
        id,
    )
    .fetch_optional(pool)
    .await?
    .map(view)
    .transpose()
}

/// At most `limit` bookings with an id above `after`, by id, as of the database's clock.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn list(
    pool: &PgPool,
    filter: &Filter,
    after: i64,
    limit: i64,
) -> Result<Vec<Booking>, postgres::Error> {
    // Only the conditions that restrict, so that each combination has the plan and the index that suit it.
    let mut sql = QueryBuilder::new(
        "SELECT id, show_id, user_name, number_of_seats, status, expires_at, created_at, resolved_at, now() AS read_at
         FROM bookings WHERE id > ",
    );
    sql.push_bind(after);
    if let Some(show_id) = filter.show_id {
        sql.push(" AND show_id = ").push_bind(show_id);
    }
    if let Some(user_name) = &filter.user_name {
        sql.push(" AND user_name = ").push_bind(user_name);
    }
    if let Some(status) = filter.status {
        sql.push(" AND CASE WHEN status = 'PENDING' AND expires_at <= now() THEN 'FAILED' ELSE status END = ")
            .push_bind(status.as_str());
    }
    sql.push(" ORDER BY id LIMIT ").push_bind(limit);
    sql.build_query_as::<Row>()
        .fetch_all(pool)
        .await?
        .into_iter()
        .map(view)
        .collect()
}

/// The answer to a request for a booking that does not exist.
pub(super) fn not_found(booking_id: i64) -> Result<Booking, Refusal> {
    Err(Refusal::BookingNotFound { booking_id })
}

/// Bookings whose rows are locked until the transaction ends.
pub(super) struct Locked {
    /// Those that exist, by id.
    pub bookings: BTreeMap<i64, Booking>,
    /// The database's clock, read when all of them were locked; none when no booking exists.
    pub locked_at: Option<DateTime<Utc>>,
}

/// Locks these bookings, in the order of their ids, until the transaction ends, and reads the clock. Where the
/// shows' counters change too, their rows must be locked already.
pub(super) async fn lock(tx: &mut PgConnection, ids: &[i64]) -> Result<Locked, postgres::Error> {
    // The clock is read after the locks are held, as in `show::lock`.
    let rows = sqlx::query_as!(
        Row,
        r#"WITH locked AS MATERIALIZED (
               SELECT id, show_id, user_name, number_of_seats, status, expires_at, created_at, resolved_at
               FROM bookings WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE)
           SELECT id, show_id, user_name, number_of_seats, status, expires_at, created_at, resolved_at,
                  clock_timestamp() AS "read_at!"
           FROM locked"#,
        ids,
    )
    .fetch_all(tx)
    .await?;
    Ok(Locked {
        locked_at: rows.iter().map(|row| row.read_at).max(),
        bookings: rows
            .into_iter()
            .map(|row| Ok((row.id, Booking::try_from(row)?)))
            .collect::<Result<_, postgres::Error>>()?,
    })
}

/// The ids of the shows that these bookings belong to, ascending. No lock is needed: a booking never moves.
pub(super) async fn show_ids(
    tx: &mut PgConnection,
    booking_ids: &[i64],
) -> Result<Vec<i64>, postgres::Error> {
    let ids = sqlx::query_scalar!(
        "SELECT DISTINCT show_id FROM bookings WHERE id = ANY($1) ORDER BY show_id",
        booking_ids,
    )
    .fetch_all(tx)
    .await?;
    Ok(ids)
}
