//! Locks that others keep: which requests can't have theirs, and waiting for one.
//!
//! Requests for several shows share a transaction. When it could not have all of its locks soon, the requests for those that
//! it could not have are told from the others here, so that the others need not wait.

use std::collections::BTreeSet;

use sqlx::PgConnection;

use super::{Change, query, reserve};
use crate::{
    postgres::{self, Session},
    show,
};

/// A row that transactions lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lock {
    /// The row of the show with this id.
    Show(i64),
    /// The row of a booking.
    Booking {
        /// The booking.
        id: i64,
        /// Its show, if it is known. On [Citus](crate::postgres::citus) it must be.
        show_id: Option<i64>,
    },
}

/// The lock that each request can't have now, in their order; none for a request that can have all of its locks.
pub type Missing = Vec<Option<Lock>>;

/// The locks that others keep from requests to reserve.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn missing_to_reserve(
    session: &mut Session,
    requests: &[reserve::Request],
) -> Result<Missing, postgres::Error> {
    let ids: Vec<i64> = requests.iter().map(|request| request.show_id).collect();
    let kept = session
        .transact(&mut &*ids, |tx, ids| Box::pin(kept_shows(tx, ids)))
        .await?;
    let missing = |id: &i64| kept.contains(id).then_some(Lock::Show(*id));
    Ok(ids.iter().map(missing).collect())
}

/// The locks that others keep from requests to confirm or to extend.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn missing_to_change<Request: AsRef<Change>>(
    session: &mut Session,
    requests: &[Request],
) -> Result<Missing, postgres::Error> {
    let ids: Vec<i64> = requests.iter().map(|r| r.as_ref().booking_id).collect();
    let kept = session
        .transact(&mut &*ids, |tx, ids| Box::pin(kept_bookings(tx, ids)))
        .await?;
    let missing = |change: &Change| {
        let (id, show_id) = (change.booking_id, change.show_id);
        kept.contains(&id).then_some(Lock::Booking { id, show_id })
    };
    Ok(requests.iter().map(|r| missing(r.as_ref())).collect())
}

/// The locks that others keep from requests to cancel, which lock the show too.
///
/// # Errors
///
/// [`postgres::Error`].
pub async fn missing_to_cancel(
    session: &mut Session,
    requests: &[Change],
) -> Result<Missing, postgres::Error> {
    let shows = query::locate(session, &super::change::ids(requests)).await?;
    let known: Vec<i64> = shows.iter().copied().flatten().collect();
    let kept = session
        .transact(&mut &*known, |tx, ids| Box::pin(kept_shows(tx, ids)))
        .await?;
    let of_bookings = missing_to_change(session, requests).await?;
    let of_shows = shows
        .into_iter()
        .map(|show| show.filter(|id| kept.contains(id)).map(Lock::Show));
    Ok(of_shows
        .zip(of_bookings)
        .map(|(show, booking)| show.or(booking))
        .collect())
}

/// Waits until nobody else has this lock, as long as the session waits for one. It may be taken again before the caller does
/// anything.
///
/// # Errors
///
/// [`postgres::Error`]; [`postgres::Error::Locked`] when somebody keeps it for longer.
pub async fn wait(session: &mut Session, mut lock: Lock) -> Result<(), postgres::Error> {
    session
        .transact(&mut lock, |tx, lock| Box::pin(take(tx, *lock)))
        .await
}

async fn take(tx: &mut PgConnection, lock: Lock) -> Result<(), postgres::Error> {
    match lock {
        Lock::Show(id) => show::lock(tx, &[id]).await.map(drop),
        Lock::Booking { id, show_id } => query::lock(tx, &[id], show_id).await.map(drop),
    }
}

/// Those of these shows whose row somebody else has locked.
async fn kept_shows(tx: &mut PgConnection, ids: &[i64]) -> Result<BTreeSet<i64>, postgres::Error> {
    let kept = sqlx::query_scalar!(
        r#"WITH free AS MATERIALIZED (
               SELECT show.id FROM unnest($1::bigint[]) AS wanted (id)
               CROSS JOIN LATERAL (
                   SELECT id FROM shows WHERE id = wanted.id ORDER BY generation DESC LIMIT 1
                   FOR NO KEY UPDATE SKIP LOCKED) AS show)
           SELECT wanted.id AS "id!" FROM unnest($1) AS wanted (id)
           WHERE id NOT IN (SELECT id FROM free) AND EXISTS (SELECT FROM shows WHERE shows.id = wanted.id)"#,
        ids,
    )
    .fetch_all(tx)
    .await?;
    Ok(kept.into_iter().collect())
}

/// Those of these bookings whose row somebody else has locked.
async fn kept_bookings(
    tx: &mut PgConnection,
    ids: &[i64],
) -> Result<BTreeSet<i64>, postgres::Error> {
    let kept = sqlx::query_scalar!(
        "WITH free AS MATERIALIZED (
             SELECT id FROM bookings WHERE id = ANY($1) FOR NO KEY UPDATE SKIP LOCKED)
         SELECT id FROM bookings WHERE id = ANY($1) AND id NOT IN (SELECT id FROM free)",
        ids,
    )
    .fetch_all(tx)
    .await?;
    Ok(kept.into_iter().collect())
}
