//! Cancelling all bookings of a cancelled show.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;

use super::{
    locks::{self, Lock},
    query,
    rules::{Booking, Effect},
    save::{Changed, freed_by_show, save},
    status::BookingStatus,
};
use crate::{
    id::{BookingId, ShowId},
    metrics::BOOKINGS,
    postgres::{self, Session, Work},
    show, timestamp,
};

/// Maximum number of bookings that one transaction cancels, which bounds how long it takes.
const MAX_AT_ONCE: i64 = 1000;

/// Time after which a job ends, to be run again. A job must end in 15 s.
const TURN: Duration = Duration::from_secs(8);

/// Time between two transactions, as a multiple of the time that the last one took.
const PAUSES: u32 = 6;

/// Outcome of a job that cancels the bookings of a show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Number of bookings that were cancelled, or failed because their hold was overdue.
    pub ended: u64,
    /// When to run the job again; `None` if no booking of the show is held or confirmed.
    pub again_at: Option<DateTime<Utc>>,
}

/// Cancels the bookings of a show, in as many transactions as it takes, until none is held or
/// confirmed or the job's turn is over.
///
/// A confirmation does not lock the show, and may come in between: the next transaction cancels that
/// booking. New bookings there are none, since the show was cancelled under its lock.
///
/// # Errors
///
/// Fails if the database call fails; what was done in earlier transactions stays done.
pub async fn cancel_bookings_of(
    session: &mut Session,
    show_id: ShowId,
) -> Result<Outcome, postgres::Error> {
    let began = Instant::now();
    let mut ended = 0;
    loop {
        let ids = postgres::in_time(find_live(session.pool(), show_id)).await?;
        let Some(first) = ids.first() else {
            return Ok(Outcome {
                ended,
                again_at: None,
            });
        };
        let round = Instant::now();
        let changed = cancel_all(session, show_id, &ids).await?;
        ended += changed;
        // Most of the server is for the sales of other shows meanwhile.
        tokio::time::sleep(round.elapsed() * PAUSES).await;
        if began.elapsed() > TURN {
            return Ok(Outcome {
                ended,
                again_at: Some(timestamp::now(session.pool()).await?),
            });
        }
        if changed == 0 {
            let lock = Lock::Booking {
                id: *first,
                show_id: Some(show_id),
            };
            locks::wait(session, lock).await?;
        }
    }
}

/// Finds bookings of a cancelled show that are held or confirmed, in the order of their ids: at most
/// [`MAX_AT_ONCE`] of each.
async fn find_live(pool: &PgPool, show_id: ShowId) -> Result<Vec<BookingId>, postgres::Error> {
    let ids = sqlx::query_scalar!(
        r#"SELECT id AS "id!: BookingId" FROM (
               (SELECT bookings.id
                FROM batches CROSS JOIN LATERAL (
                    SELECT * FROM bookings
                    WHERE bookings.show_id = batches.show_id AND bookings.id BETWEEN first_id AND batches.id OFFSET 0) AS bookings
                WHERE batches.show_id = $1 AND has_confirmed AND status = 'CONFIRMED'
                ORDER BY batches.id LIMIT $2)
               UNION ALL
               (SELECT bookings.id
                FROM batches CROSS JOIN LATERAL (
                    SELECT * FROM bookings
                    WHERE bookings.show_id = batches.show_id AND bookings.id BETWEEN first_id AND batches.id OFFSET 0) AS bookings
                WHERE batches.show_id = $1 AND has_held AND is_extended = is_extension AND status = 'PENDING'
                ORDER BY batches.expires_at LIMIT $2)) AS live
           WHERE (SELECT sale_status FROM shows WHERE id = $1 ORDER BY generation DESC LIMIT 1) = 'CANCELLED'
           ORDER BY id"#,
        show_id as ShowId,
        MAX_AT_ONCE,
    )
    .fetch_all(pool)
    .await?;
    Ok(ids)
}

/// Cancels those of these bookings of a show that no other transaction has locked, or fails them if
/// they are overdue holds, and returns how many.
async fn cancel_all(
    session: &mut Session,
    show_id: ShowId,
    ids: &[BookingId],
) -> Result<u64, postgres::Error> {
    if !session.commits_each_statement() {
        return session.transact(CancelAll { show_id, ids }).await;
    }
    let cancelling = async {
        let statement = sqlx::query_file!(
            "src/booking/cancel_show.sql",
            show_id as ShowId,
            ids as &[BookingId],
            session.lock_timeout(),
        );
        Ok(statement.fetch_one(session.pool()).await?)
    };
    let done = postgres::in_time(cancelling).await?;
    BOOKINGS.cancelled.inc_by(done.cancelled.unsigned_abs());
    Ok(done.ended.unsigned_abs())
}

/// Transaction that cancels those of these bookings that no other transaction has locked, or fails
/// them if they are overdue holds, and returns how many.
struct CancelAll<'i> {
    show_id: ShowId,
    ids: &'i [BookingId],
}

impl Work for CancelAll<'_> {
    type Output = u64;

    async fn run(&mut self, tx: &mut PgConnection) -> Result<u64, postgres::Error> {
        let show_id = Some(self.show_id);
        let Some(locked) = query::lock_free(tx, self.ids, show_id).await? else {
            return Ok(0);
        };
        let now = locked.locked_at;
        let changed: Vec<Changed> = locked
            .bookings
            .into_values()
            .filter_map(|before| end(before, now))
            .collect();
        save(tx, &changed, now, show_id).await?;
        show::lock_and_add_available_seats(tx, &freed_by_show(&changed)).await?;
        let is_cancelled = |booking: &&Changed| booking.after.status == BookingStatus::Cancelled;
        let cancelled = changed.iter().filter(is_cancelled).count() as u64;
        // If the COMMIT fails, they are counted once more.
        BOOKINGS.cancelled.inc_by(cancelled);
        Ok(changed.len() as u64)
    }
}

/// Cancels a booking, or fails it if it is an overdue hold. Pure.
fn end(before: Booking, now: DateTime<Utc>) -> Option<Changed> {
    let mut after = before.clone();
    let is_changed = after.expire(now) == Effect::Changed
        || matches!(after.cancel(None, now), Ok(Effect::Changed));
    is_changed.then_some(Changed { before, after })
}
