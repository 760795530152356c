//! Shows: what has seats to sell, and the counter of the seats left.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};

use crate::{booking::Refusal, postgres};

/// The most seats that one show can have.
pub const MAX_SEATS: i32 = 1_000_000;

/// How long a hold lasts when the show does not say, in seconds.
pub const DEFAULT_HOLD_SECONDS: i32 = 120;

/// One performance with a number of unnumbered seats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Show {
    /// Identity.
    pub id: i64,
    /// What people see: 1 to 200 characters.
    pub name: String,
    /// When it begins.
    #[serde(rename = "startTime")]
    pub starts_at: DateTime<Utc>,
    /// Seats in all: 1 to [`MAX_SEATS`].
    pub seats: i32,
    /// Seats that no pending or confirmed booking has: 0 to `seats`.
    pub available_seats: i32,
    /// How long a new booking holds its seats unconfirmed, in seconds.
    pub hold_seconds: i32,
    /// When it was created.
    pub created_at: DateTime<Utc>,
}

/// What a client says of a new show.
#[derive(Debug, Clone)]
pub struct NewShow {
    /// What people see: 1 to 200 characters.
    pub name: String,
    /// When it begins; may lie in the past.
    pub starts_at: DateTime<Utc>,
    /// Seats in all: 1 to [`MAX_SEATS`].
    pub seats: i32,
    /// How long a booking holds its seats unconfirmed, in seconds: 1 to 86,400.
    pub hold_seconds: i32,
}

/// Writes a new show with all its seats available.
///
/// # Errors
///
/// [`postgres::Error`]; also when a bound is broken, which the caller should have refused.
pub async fn create(pool: &PgPool, new: &NewShow) -> Result<Show, postgres::Error> {
    let show = sqlx::query_as!(
        Show,
        "INSERT INTO shows (name, starts_at, seats, available_seats, hold_seconds)
         VALUES ($1, $2, $3, $3, $4)
         RETURNING id, name, starts_at, seats, available_seats, hold_seconds, created_at",
        new.name,
        new.starts_at,
        new.seats,
        new.hold_seconds,
    )
    .fetch_one(pool)
    .await?;
    Ok(show)
}

/// Finds a show.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn find(pool: &PgPool, id: i64) -> Result<Option<Show>, postgres::Error> {
    let show = sqlx::query_as!(
        Show,
        "SELECT id, name, starts_at, seats, available_seats, hold_seconds, created_at
         FROM shows WHERE id = $1",
        id,
    )
    .fetch_optional(pool)
    .await?;
    Ok(show)
}

/// At most `limit` shows with an id above `after`, by id.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn list(pool: &PgPool, after: i64, limit: i64) -> Result<Vec<Show>, postgres::Error> {
    let shows = sqlx::query_as!(
        Show,
        "SELECT id, name, starts_at, seats, available_seats, hold_seconds, created_at
         FROM shows WHERE id > $1 ORDER BY id LIMIT $2",
        after,
        limit,
    )
    .fetch_all(pool)
    .await?;
    Ok(shows)
}

/// Shows whose rows are locked until the transaction ends.
#[derive(Debug)]
pub struct Locked {
    /// Those that exist, by id.
    pub inventories: BTreeMap<i64, Inventory>,
    /// The database's clock, read when all of them were locked; none when no show exists.
    pub locked_at: Option<DateTime<Utc>>,
}

/// What reserving must know of a show whose row is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inventory {
    /// The show.
    pub show_id: i64,
    /// Seats left for the next request.
    pub available_seats: i32,
    /// How long a new hold lasts, in seconds.
    pub hold_seconds: i32,
}

impl Inventory {
    /// Takes seats for a hold that begins `now`, and returns its deadline.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotEnoughSeats`], and nothing is taken: a booking gets all its seats or none.
    pub fn take(&mut self, seats: i32, now: DateTime<Utc>) -> Result<DateTime<Utc>, Refusal> {
        if seats > self.available_seats {
            return Err(Refusal::NotEnoughSeats {
                show_id: self.show_id,
                requested: seats,
                available: self.available_seats,
            });
        }
        self.available_seats -= seats;
        Ok(now + TimeDelta::seconds(self.hold_seconds.into()))
    }
}

/// Locks the rows of these shows, in the order of their ids, until the transaction ends, and reads the clock.
///
/// The lock leaves the key alone (`NO KEY`), so that a booking's reference to its show need not wait for it.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn lock(tx: &mut PgConnection, ids: &[i64]) -> Result<Locked, postgres::Error> {
    // A row leaves the materialized query when it is locked, and only then the clock is read beside it: so the last
    // row's time is after all the locks.
    let rows = sqlx::query!(
        r#"WITH locked AS MATERIALIZED (
               SELECT id, available_seats, hold_seconds
               FROM shows WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE)
           SELECT id AS show_id, available_seats, hold_seconds, clock_timestamp() AS "read_at!"
           FROM locked"#,
        ids,
    )
    .fetch_all(tx)
    .await?;
    Ok(Locked {
        locked_at: rows.iter().map(|row| row.read_at).max(),
        inventories: rows
            .into_iter()
            .map(|row| {
                let inventory = Inventory {
                    show_id: row.show_id,
                    available_seats: row.available_seats,
                    hold_seconds: row.hold_seconds,
                };
                (row.show_id, inventory)
            })
            .collect(),
    })
}

/// Adds to each show's available seats, or takes from them where the number is negative. The shows must be
/// locked. A counter that would leave `0..=seats` fails the transaction: drift is never hidden by a clamp.
///
/// # Errors
///
/// [`postgres::Error`]; [`postgres::Error::Unexpected`] when a counter would leave its bounds.
pub async fn add_available_seats(
    tx: &mut PgConnection,
    seats_by_show: &BTreeMap<i64, i32>,
) -> Result<(), postgres::Error> {
    let (ids, seats): (Vec<i64>, Vec<i32>) = seats_by_show
        .iter()
        .filter(|(_, seats)| **seats != 0)
        .unzip();
    if ids.is_empty() {
        return Ok(());
    }
    let updated = sqlx::query!(
        "UPDATE shows SET available_seats = available_seats + change.seats
         FROM unnest($1::bigint[], $2::integer[]) AS change (show_id, seats)
         WHERE id = change.show_id AND available_seats + change.seats BETWEEN 0 AND shows.seats",
        &ids,
        &seats,
    )
    .execute(tx)
    .await?
    .rows_affected();
    postgres::expect_rows("seat counters of shows", ids.len(), updated)
}
