//! Expiring holds: fails those past their deadline, and puts their seats back on sale.

mod fail;
mod overdue;
mod sweep;

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

pub(crate) use self::sweep::reclaim;
use self::{
    fail::{Fail, fail},
    overdue::MAX_AT_ONCE,
};
pub use self::{overdue::find_overdue_shows, sweep::sweep};
use super::locks::{self, Lock};
use crate::{
    id::{BookingId, ShowId},
    jobs::ExpireBookings,
    postgres::{self, Session},
};

/// Time for which a job may be due before it counts as late.
const LATE: TimeDelta = TimeDelta::milliseconds(500);

/// Outcome of an expiry job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Bookings that failed, including those of other jobs.
    pub expired: BTreeSet<BookingId>,
    /// When to run the job again; `None` if none of the named bookings is still held.
    ///
    /// It is the earliest deadline of the named bookings that are still held, or one second from
    /// now if that deadline has passed, because another transaction keeps the booking locked.
    pub next_deadline: Option<DateTime<Utc>>,
}

/// Fails the named bookings that are overdue, and puts their seats back on sale.
///
/// Bookings that are resolved, not yet due or unknown stay as they are, so a repeat does nothing.
///
/// The job expires other overdue holds of the same shows as well, because all transactions wait for
/// the show's row: in a big sale hundreds of jobs are due in the same second, and the first ones do
/// the work of the rest. It takes holds with the same deadlines as its own or later ones, because
/// earlier in the index it would meet the entries of all holds that were expired before. A job that
/// is late takes the oldest holds of all, because there is a backlog. If no named booking is
/// overdue, nothing is locked.
///
/// # Errors
///
/// Fails if the database call fails; what was done for other shows stays done.
pub async fn expire(
    session: &mut Session,
    job: &ExpireBookings,
) -> Result<Outcome, postgres::Error> {
    let mut expired = BTreeSet::new();
    let mut again_at = None;
    for _ in 0..ROUNDS {
        let work = postgres::in_time(find_work(session.pool(), job)).await?;
        expired.extend(fail_each(session, &work).await?);
        let Some(kept) = work.iter().find_map(|show| show.kept(&expired)) else {
            return Ok(Outcome {
                expired,
                next_deadline: work.iter().filter_map(|show| show.next_deadline).min(),
            });
        };
        again_at = work.iter().filter_map(ShowWork::again_at).min();
        // Most likely another worker is expiring it, or a client is extending it: done in a moment.
        match locks::wait(session, kept).await {
            Ok(()) => {}
            Err(postgres::Error::Locked(_)) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Outcome {
        expired,
        next_deadline: again_at,
    })
}

/// Number of times that a job tries to lock the holds that it names, before it leaves them for
/// later.
const ROUNDS: u32 = 3;

/// Work to do for one show that has named bookings.
struct ShowWork {
    show_id: ShowId,
    /// Named bookings that are overdue.
    due: Vec<BookingId>,
    /// Other overdue holds of the show, oldest first; about [`MAX_AT_ONCE`] at most for all shows.
    others: Vec<BookingId>,
    /// Earliest deadline of the named bookings that are held and not overdue.
    next_deadline: Option<DateTime<Utc>>,
    /// One second from now, on the database's clock.
    soon: DateTime<Utc>,
}

impl ShowWork {
    /// Returns the ids of all bookings to fail, some of them twice.
    fn ids(&self) -> impl Iterator<Item = BookingId> {
        self.due.iter().chain(&self.others).copied()
    }

    /// Returns the lock of a named booking that was due, but is not among those that failed.
    fn kept(&self, failed: &BTreeSet<BookingId>) -> Option<Lock> {
        let id = *self.due.iter().find(|id| !failed.contains(id))?;
        Some(Lock::Booking {
            id,
            show_id: Some(self.show_id),
        })
    }

    fn again_at(&self) -> Option<DateTime<Utc>> {
        let soon = (!self.due.is_empty()).then_some(self.soon);
        soon.into_iter().chain(self.next_deadline).min()
    }
}

/// Fails the overdue bookings of each show, and returns their ids.
async fn fail_each(
    session: &mut Session,
    work: &[ShowWork],
) -> Result<Vec<BookingId>, postgres::Error> {
    let due: Vec<&ShowWork> = work.iter().filter(|show| !show.due.is_empty()).collect();
    if due.len() > 1 {
        let ids: BTreeSet<BookingId> = due.iter().flat_map(|show| show.ids()).collect();
        let together = Fail {
            show_id: None,
            ids: &Vec::from_iter(ids),
        };
        match session.transact(together).await {
            // The other shows need not wait for the one that is locked: each gets a transaction.
            Err(postgres::Error::Locked(_)) => {}
            result => return result,
        }
    }
    let (mut failed, mut locked) = (Vec::new(), None);
    for show in due {
        let ids: BTreeSet<BookingId> = show.ids().collect();
        match fail(session, show.show_id, &Vec::from_iter(ids)).await {
            Ok(ids) => failed.extend(ids),
            Err(error @ postgres::Error::Locked(_)) => locked = Some(error),
            Err(error) => return Err(error),
        }
    }
    locked.map_or(Ok(failed), Err)
}

/// Finds the job's work at each show. Locks nothing.
async fn find_work(pool: &PgPool, job: &ExpireBookings) -> Result<Vec<ShowWork>, postgres::Error> {
    let work = sqlx::query_as!(
        ShowWork,
        r#"SELECT show_id AS "show_id: ShowId", due AS "due!: Vec<BookingId>",
                  ARRAY(SELECT bookings.id
                        FROM batches CROSS JOIN LATERAL (
                            SELECT * FROM bookings
                            WHERE bookings.show_id = batches.show_id AND bookings.id BETWEEN first_id AND batches.id OFFSET 0) AS bookings
                        WHERE is_extended = is_extension AND bookings.status = 'PENDING' AND batches.show_id = named.show_id AND ($3::bigint IS NULL OR batches.show_id = $3)
                          AND has_held AND batches.expires_at <= now() AND batches.expires_at >=
                              CASE WHEN first_due > now() - make_interval(secs => $4) THEN first_due
                                   WHEN first_due IS NOT NULL THEN '-infinity' END
                        ORDER BY batches.expires_at LIMIT greatest(1, $2 / shows)) AS "others!: Vec<BookingId>",
                  next_deadline, now() + interval '1 second' AS "soon!"
           FROM (SELECT show_id,
                        coalesce(array_agg(id) FILTER (WHERE is_due), '{}') AS due,
                        min(expires_at) FILTER (WHERE is_due) AS first_due,
                        count(*) OVER () AS shows,
                        min(expires_at) FILTER (WHERE status = 'PENDING' AND NOT is_due) AS next_deadline
                 FROM (SELECT id, show_id, status, expires_at, status = 'PENDING' AND expires_at <= now() AS is_due
                       FROM bookings WHERE id = ANY($1) AND ($3::bigint IS NULL OR show_id = $3)) AS each
                 GROUP BY show_id) AS named
           ORDER BY show_id"#,
        &job.booking_ids as &[BookingId],
        MAX_AT_ONCE,
        job.show_id as Option<ShowId>,
        LATE.as_seconds_f64(),
    )
    .fetch_all(pool)
    .await?;
    Ok(work)
}
