//! Row locks held by other transactions: which requests can't have theirs, and how to wait for one.
//!
//! Requests for several shows share a transaction. When it can't get all of its locks soon, this
//! module finds the requests whose locks are held, so that the others need not wait.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::PgConnection;

use super::{
    change::{self, Change},
    query,
};
use crate::{
    id::{BookingId, ShowId},
    postgres::{self, Session, Work},
    show,
};

/// Row that transactions lock, or rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lock {
    /// Rows of batches of a show.
    ///
    /// One transaction can have many of them, and has them only until it ends: who needs any of
    /// them waits for it in the transaction that needs it, without a wait before.
    BatchesOf(ShowId),
    /// Row of the show with this id.
    Show(ShowId),
    /// Row of a booking, and of its batch.
    Booking {
        /// Id of the booking.
        id: BookingId,
        /// Id of its show, if known. On [Citus](crate::postgres::citus) it must be.
        show_id: Option<ShowId>,
    },
}

/// For each request, in order, the lock that it can't have now; `None` if it can have all of its
/// locks.
pub type HeldLocks = Vec<Option<Lock>>;

/// Finds the locks of these shows that other transactions hold: those that reserving needs.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn held_show_locks(
    session: &mut Session,
    show_ids: &[ShowId],
) -> Result<HeldLocks, postgres::Error> {
    let locked = session.transact(FindLockedShows(show_ids)).await?;
    let missing = |id: &ShowId| locked.contains(id).then_some(Lock::Show(*id));
    Ok(show_ids.iter().map(missing).collect())
}

/// Finds the locks that requests to change bookings need and other transactions hold: of the
/// bookings, and of the shows where seats may go back on sale.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn held_locks<Request: AsRef<Change>>(
    session: &mut Session,
    requests: &[Request],
    may_free_seats: impl Fn(&Request) -> bool,
) -> Result<HeldLocks, postgres::Error> {
    let ids = change::ids(requests);
    let freeing: Vec<BookingId> = std::iter::zip(&ids, requests)
        .filter_map(|(id, request)| may_free_seats(request).then_some(*id))
        .collect();
    let mut locks: BTreeMap<BookingId, Lock> = session.transact(FindLockedBookings(&ids)).await?;
    if !freeing.is_empty() {
        let shows = query::locate(session, &freeing).await?;
        let known: Vec<ShowId> = shows.iter().copied().flatten().collect();
        let locked = session.transact(FindLockedShows(&known)).await?;
        for (id, show_id) in std::iter::zip(freeing, shows) {
            if let Some(show_id) = show_id.filter(|show_id| locked.contains(show_id)) {
                locks.insert(id, Lock::Show(show_id));
            }
        }
    }
    Ok(ids.iter().map(|id| locks.get(id).copied()).collect())
}

/// Waits until no other transaction holds this lock, up to the session's lock timeout.
///
/// Another transaction may take it again before the caller does anything.
///
/// # Errors
///
/// Fails if the database call fails, and with [`postgres::Error::Locked`] after the lock timeout.
pub async fn wait(session: &mut Session, lock: Lock) -> Result<(), postgres::Error> {
    match lock {
        Lock::BatchesOf(_) => Ok(()),
        Lock::Show(id) => session.transact(AcquireShow(id)).await,
        Lock::Booking { id, show_id } => session.transact(AcquireBooking { id, show_id }).await,
    }
}

/// Transaction that locks a show, and releases it when it ends.
struct AcquireShow(ShowId);

impl Work for AcquireShow {
    type Output = ();

    async fn run(&mut self, tx: &mut PgConnection) -> Result<(), postgres::Error> {
        show::lock(tx, &[self.0]).await.map(drop)
    }
}

/// Transaction that locks a booking and its batch, and releases them when it ends.
struct AcquireBooking {
    id: BookingId,
    show_id: Option<ShowId>,
}

impl Work for AcquireBooking {
    type Output = ();

    async fn run(&mut self, tx: &mut PgConnection) -> Result<(), postgres::Error> {
        sqlx::query!(
            r#"SELECT bookings.id
           FROM bookings JOIN batches ON batches.show_id = bookings.show_id AND batches.id = batch_id AND NOT is_extension
           WHERE bookings.id = $1 AND ($2::bigint IS NULL OR bookings.show_id = $2) FOR NO KEY UPDATE"#,
            self.id as BookingId,
            self.show_id as Option<ShowId>,
        )
        .fetch_optional(tx)
        .await?;
        Ok(())
    }
}

/// Transaction that finds those of these shows whose row another transaction has locked.
struct FindLockedShows<'i>(&'i [ShowId]);

impl Work for FindLockedShows<'_> {
    type Output = BTreeSet<ShowId>;

    async fn run(&mut self, tx: &mut PgConnection) -> Result<BTreeSet<ShowId>, postgres::Error> {
        let locked = sqlx::query_scalar!(
        r#"WITH free AS MATERIALIZED (
               SELECT show.id FROM unnest($1::bigint[]) AS wanted (id)
               CROSS JOIN LATERAL (
                   SELECT id FROM shows WHERE id = wanted.id ORDER BY generation DESC LIMIT 1
                   FOR NO KEY UPDATE SKIP LOCKED) AS show)
           SELECT wanted.id AS "id!: ShowId" FROM unnest($1) AS wanted (id)
           WHERE id NOT IN (SELECT id FROM free) AND EXISTS (SELECT FROM shows WHERE shows.id = wanted.id)"#,
        self.0 as &[ShowId],
    )
    .fetch_all(tx)
    .await?;
        Ok(locked.into_iter().collect())
    }
}

/// Transaction that finds those of these bookings that another transaction has locked, or their
/// batch, each with the lock.
struct FindLockedBookings<'i>(&'i [BookingId]);

impl Work for FindLockedBookings<'_> {
    type Output = BTreeMap<BookingId, Lock>;

    async fn run(&mut self, tx: &mut PgConnection) -> Result<Self::Output, postgres::Error> {
        let locked = sqlx::query!(
            r#"WITH free AS MATERIALIZED (
                 SELECT id FROM bookings WHERE id = ANY($1) FOR NO KEY UPDATE SKIP LOCKED),
             in_free_batch AS MATERIALIZED (
                 SELECT bookings.id
                 FROM bookings JOIN batches ON batches.show_id = bookings.show_id AND batches.id = batch_id AND NOT is_extension
                 WHERE bookings.id = ANY($1) FOR NO KEY UPDATE OF batches SKIP LOCKED)
             SELECT id AS "id: BookingId", show_id AS "show_id: ShowId", id IN (SELECT id FROM free) AS "is_free!"
             FROM bookings WHERE id = ANY($1) AND (id NOT IN (SELECT id FROM free) OR id NOT IN (SELECT id FROM in_free_batch))"#,
            self.0 as &[BookingId],
        )
        .fetch_all(tx)
        .await?;
        Ok(locked
            .into_iter()
            .map(|found| {
                let lock = if found.is_free {
                    Lock::BatchesOf(found.show_id)
                } else {
                    Lock::Booking {
                        id: found.id,
                        show_id: Some(found.show_id),
                    }
                };
                (found.id, lock)
            })
            .collect())
    }
}
