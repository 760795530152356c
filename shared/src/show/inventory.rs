//! Locked shows, and the counters of their available seats.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

use super::sale::{Sale, ShowStatus};
use crate::{
    booking::Refusal,
    id::ShowId,
    postgres::{self, expect_rows},
};

/// Shows whose rows are locked until the transaction ends.
#[derive(Debug, Clone, Default)]
pub struct Locked {
    /// Shows that exist, by id.
    pub inventories: BTreeMap<ShowId, Inventory>,
    /// The database's clock, read when all of them were locked; `None` when no show exists.
    pub locked_at: Option<DateTime<Utc>>,
}

/// State of a locked show that reserving needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inventory {
    /// Id of the show.
    pub show_id: ShowId,
    /// Generation of its row, by which a statement finds the row to write.
    pub(crate) generation: i64,
    /// Seats left for the next request.
    pub available_seats: i32,
    /// Duration of a new hold, in seconds.
    pub hold_seconds: i32,
    /// Maximum total duration of a hold, extensions included, in seconds.
    pub max_hold_seconds: i32,
    /// Maximum number of seats of one booking.
    pub max_seats_per_booking: i32,
    /// Maximum number of seats of one user.
    pub max_seats_per_user: Option<i32>,
    /// Status and sales window.
    pub sale: Sale,
}

/// Deadlines of a new hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Deadline of the hold.
    pub expires_at: DateTime<Utc>,
    /// Latest deadline that the hold can be extended to.
    pub extendable_until: DateTime<Utc>,
    /// Whether the show limits the seats of a user.
    pub counts_per_user: bool,
}

impl Inventory {
    /// Takes seats for a hold that begins `now`, for a user who has `taken` seats of this show.
    ///
    /// A booking gets all its seats or none.
    ///
    /// # Errors
    ///
    /// Fails with [`Refusal::NotOnSale`], [`Refusal::TooManySeats`], [`Refusal::UserLimitReached`] or
    /// [`Refusal::NotEnoughSeats`], checked in this order; nothing is taken then.
    pub fn take(&mut self, seats: i32, taken: i64, now: DateTime<Utc>) -> Result<Hold, Refusal> {
        if !self.sale.is_open(now) {
            return Err(Refusal::NotOnSale {
                show_id: self.show_id,
                sale: self.sale,
            });
        }
        if seats > self.max_seats_per_booking {
            return Err(Refusal::TooManySeats {
                show_id: self.show_id,
                requested: seats,
                max_seats_per_booking: self.max_seats_per_booking,
            });
        }
        if let Some(max_seats_per_user) = self.max_seats_per_user
            && taken + i64::from(seats) > i64::from(max_seats_per_user)
        {
            return Err(Refusal::UserLimitReached {
                show_id: self.show_id,
                requested: seats,
                max_seats_per_user,
                taken,
            });
        }
        if seats > self.available_seats {
            return Err(Refusal::NotEnoughSeats {
                show_id: self.show_id,
                requested: seats,
                available: self.available_seats,
            });
        }
        self.available_seats -= seats;
        Ok(Hold {
            expires_at: now + TimeDelta::seconds(self.hold_seconds.into()),
            extendable_until: now + TimeDelta::seconds(self.max_hold_seconds.into()),
            counts_per_user: self.max_seats_per_user.is_some(),
        })
    }
}

/// Returns the only one of these ids, if it is one.
///
/// Statements about one show name it, so that on [Citus](postgres::citus) they go to the server
/// that has it.
pub(crate) fn only(ids: &[ShowId]) -> Option<ShowId> {
    match ids {
        [id] => Some(*id),
        _ => None,
    }
}

/// Locks these shows' rows until the transaction ends, and reads the clock. The ids must ascend.
///
/// The lock leaves the key alone (`NO KEY`): a reference to the show need not wait for it.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn lock(tx: &mut PgConnection, ids: &[ShowId]) -> Result<Locked, postgres::Error> {
    let rows = match only(ids) {
        Some(id) => lock_one(tx, id).await?,
        None => lock_several(tx, ids).await?,
    };
    Ok(Locked {
        locked_at: rows.iter().map(|row| row.read_at).max(),
        inventories: rows
            .into_iter()
            .map(|row| (row.show_id, row.inventory()))
            .collect(),
    })
}

/// Locked row of a show.
struct LockedRow {
    show_id: ShowId,
    generation: i64,
    available_seats: i32,
    hold_seconds: i32,
    max_hold_seconds: i32,
    max_seats_per_booking: i32,
    max_seats_per_user: Option<i32>,
    status: ShowStatus,
    sales_start: Option<DateTime<Utc>>,
    sales_end: Option<DateTime<Utc>>,
    /// The database's clock.
    ///
    /// A row leaves the materialized query when it is locked, and only then is the clock read
    /// beside it. So the last row's time is after all the locks.
    read_at: DateTime<Utc>,
}

impl LockedRow {
    fn inventory(&self) -> Inventory {
        Inventory {
            show_id: self.show_id,
            generation: self.generation,
            available_seats: self.available_seats,
            hold_seconds: self.hold_seconds,
            max_hold_seconds: self.max_hold_seconds,
            max_seats_per_booking: self.max_seats_per_booking,
            max_seats_per_user: self.max_seats_per_user,
            sale: Sale {
                status: self.status,
                start: self.sales_start,
                end: self.sales_end,
            },
        }
    }
}

async fn lock_one(tx: &mut PgConnection, id: ShowId) -> Result<Vec<LockedRow>, sqlx::Error> {
    sqlx::query_file_as!(LockedRow, "src/show/lock.sql", id as ShowId)
        .fetch_all(tx)
        .await
}

/// Locks the row of each of these shows like [`lock_one`], in the order of the ids.
async fn lock_several(
    tx: &mut PgConnection,
    ids: &[ShowId],
) -> Result<Vec<LockedRow>, sqlx::Error> {
    sqlx::query_as!(
        LockedRow,
        r#"WITH locked AS MATERIALIZED (
               SELECT show.* FROM unnest($1::bigint[]) AS wanted (id)
               CROSS JOIN LATERAL (
                   SELECT id, generation, available_seats, hold_seconds, max_hold_seconds, max_seats_per_booking,
                          max_seats_per_user, sale_status, sales_start, sales_end
                   FROM shows WHERE id = wanted.id ORDER BY generation DESC LIMIT 1 FOR NO KEY UPDATE) AS show)
           SELECT id AS "show_id!: ShowId", generation AS "generation!", available_seats AS "available_seats!",
                  hold_seconds AS "hold_seconds!", max_hold_seconds AS "max_hold_seconds!",
                  max_seats_per_booking AS "max_seats_per_booking!", max_seats_per_user,
                  sale_status AS "status!: ShowStatus", sales_start, sales_end,
                  clock_timestamp() AS "read_at!"
           FROM locked"#,
        ids as &[ShowId],
    )
    .fetch_all(tx)
    .await
}

/// Locks these shows and adds to each one's available seats: see [`Locked::add_available_seats`].
///
/// # Errors
///
/// Fails if the database call fails.
pub(crate) async fn lock_and_add_available_seats(
    tx: &mut PgConnection,
    seats_by_show: &BTreeMap<ShowId, i32>,
) -> Result<(), postgres::Error> {
    if seats_by_show.is_empty() {
        return Ok(());
    }
    let ids: Vec<ShowId> = seats_by_show.keys().copied().collect();
    let mut shows = lock(tx, &ids).await?;
    shows.add_available_seats(tx, seats_by_show).await
}

impl Locked {
    /// Adds to each show's available seats, or takes from them where the number is negative.
    ///
    /// A counter that would leave `0..=seats` fails the transaction: drift is never hidden by a
    /// clamp.
    ///
    /// # Errors
    ///
    /// Fails if the database call fails, and with [`postgres::Error::RowCountMismatch`] if a show is not
    /// locked or its counter would leave its bounds.
    pub async fn add_available_seats(
        &mut self,
        tx: &mut PgConnection,
        seats_by_show: &BTreeMap<ShowId, i32>,
    ) -> Result<(), postgres::Error> {
        let changes: Vec<(ShowId, i32)> = seats_by_show
            .iter()
            .filter(|(_, seats)| **seats != 0)
            .map(|(show_id, seats)| (*show_id, *seats))
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        let (ids, seats): (Vec<ShowId>, Vec<i32>) = changes.into_iter().unzip();
        let rows = sqlx::query!(
            r#"UPDATE shows SET available_seats = available_seats + change.seats, revision = revision + 1
               FROM unnest($1::bigint[], $2::integer[], $3::bigint[]) AS change (show_id, seats, generation)
               WHERE id = change.show_id AND shows.generation = change.generation
                 AND available_seats + change.seats BETWEEN 0 AND shows.seats
                 AND (id, shows.generation) >= ($1[1], $3[1]) AND id <= $1[cardinality($1)]
                 AND ($4::bigint IS NULL OR id = $4)
               RETURNING id AS "id: ShowId", available_seats, shows.generation AS "generation!""#,
            &ids as &[ShowId],
            &seats,
            &self.generations(&ids),
            only(&ids) as Option<ShowId>,
        )
        .fetch_all(tx)
        .await?;
        expect_rows("seat counters of shows", ids.len(), rows.len() as u64)?;
        for row in rows {
            if let Some(show) = self.inventories.get_mut(&row.id) {
                show.available_seats = row.available_seats;
                show.generation = row.generation;
            }
        }
        Ok(())
    }

    /// Returns the id of the locked show, if exactly one exists.
    pub(crate) fn only(&self) -> Option<ShowId> {
        let mut ids = self.inventories.keys();
        ids.next().filter(|_| ids.next().is_none()).copied()
    }

    /// Returns the generations of these shows' rows, in the order of the shows.
    pub(crate) fn generations(&self, show_ids: &[ShowId]) -> Vec<i64> {
        let generation = |id| self.inventories.get(id).map_or(-1, |show| show.generation);
        show_ids.iter().map(generation).collect()
    }
}
