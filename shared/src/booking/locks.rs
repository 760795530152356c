//! Row locks held by other transactions: which requests can't have theirs, and how to wait for one.
//!
//! Requests for several shows share a transaction. When it can't get all of its locks soon, this
//! module finds the requests whose locks are held, so that the others need not wait.

use std::collections::BTreeSet;

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

/// Row that transactions lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lock {
    /// Row of the show with this id.
    Show(ShowId),
    /// Row of a booking.
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

/// Finds the locks that requests to confirm or extend need and other transactions hold.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn held_booking_locks<Request: AsRef<Change>>(
    session: &mut Session,
    requests: &[Request],
) -> Result<HeldLocks, postgres::Error> {
    let ids: Vec<BookingId> = requests.iter().map(|r| r.as_ref().booking_id).collect();
    let locked = session.transact(FindLockedBookings(&ids)).await?;
    let missing = |change: &Change| {
        let (id, show_id) = (change.booking_id, change.show_id);
        locked
            .contains(&id)
            .then_some(Lock::Booking { id, show_id })
    };
    Ok(requests.iter().map(|r| missing(r.as_ref())).collect())
}

/// Finds the locks that requests to cancel need and other transactions hold.
///
/// Cancelling locks the show, too.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn held_locks_to_cancel(
    session: &mut Session,
    requests: &[Change],
) -> Result<HeldLocks, postgres::Error> {
    let shows = query::locate(session, &change::ids(requests)).await?;
    let known: Vec<ShowId> = shows.iter().copied().flatten().collect();
    let locked = session.transact(FindLockedShows(&known)).await?;
    let of_bookings = held_booking_locks(session, requests).await?;
    let of_shows = shows
        .into_iter()
        .map(|show| show.filter(|id| locked.contains(id)).map(Lock::Show));
    Ok(of_shows
        .zip(of_bookings)
        .map(|(show, booking)| show.or(booking))
        .collect())
}

/// Waits until no other transaction holds this lock, up to the session's lock timeout.
///
/// Another transaction may take it again before the caller does anything.
///
/// # Errors
///
/// Fails if the database call fails, and with [`postgres::Error::Locked`] after the lock timeout.
pub async fn wait(session: &mut Session, lock: Lock) -> Result<(), postgres::Error> {
    session.transact(Acquire(lock)).await
}

/// Transaction that acquires a lock, and releases it when it ends.
struct Acquire(Lock);

impl Work for Acquire {
    type Output = ();

    async fn run(&mut self, tx: &mut PgConnection) -> Result<(), postgres::Error> {
        match self.0 {
            Lock::Show(id) => show::lock(tx, &[id]).await.map(drop),
            Lock::Booking { id, show_id } => query::lock(tx, &[id], show_id).await.map(drop),
        }
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

/// Transaction that finds those of these bookings whose row another transaction has locked.
struct FindLockedBookings<'i>(&'i [BookingId]);

impl Work for FindLockedBookings<'_> {
    type Output = BTreeSet<BookingId>;

    async fn run(&mut self, tx: &mut PgConnection) -> Result<BTreeSet<BookingId>, postgres::Error> {
        let locked = sqlx::query_scalar!(
            r#"WITH free AS MATERIALIZED (
             SELECT id FROM bookings WHERE id = ANY($1) FOR NO KEY UPDATE SKIP LOCKED)
         SELECT id AS "id: BookingId" FROM bookings WHERE id = ANY($1) AND id NOT IN (SELECT id FROM free)"#,
            self.0 as &[BookingId],
        )
        .fetch_all(tx)
        .await?;
        Ok(locked.into_iter().collect())
    }
}
