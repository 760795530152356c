//! Extending holds: moves their deadline.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{
    change::{self, Change, Decisions},
    query,
    refusal::Refusal,
    rules::Booking,
};
use crate::{
    batch::Batch,
    id::{BookingId, ShowId},
    metrics::BOOKINGS,
    postgres::{self, Session, Work},
};

/// Request to extend a hold.
#[derive(Debug, Clone)]
pub struct Request {
    /// Booking to extend.
    pub change: Change,
    /// Minimum time for which it is to be held from now on, in seconds.
    pub seconds: i32,
}

impl AsRef<Change> for Request {
    fn as_ref(&self) -> &Change {
        &self.change
    }
}

/// Extends holds in one transaction. Returns an answer to each request, in the same order.
///
/// Requests are decided in order. An answer is the extended booking, or why it can't be extended.
///
/// No seat counter changes, so only the bookings are locked, by id. The job that will expire the
/// booking runs at the old deadline, and is then rescheduled for the new one.
///
/// # Errors
///
/// Fails if the transaction fails; nothing changed, except perhaps with
/// [`postgres::Error::OutcomeUnknown`].
pub async fn extend(
    session: &mut Session,
    batch: &mut Batch<'_, Request>,
) -> Result<Vec<Result<Booking, Refusal>>, postgres::Error> {
    let decisions = session.transact(Extend(batch.members())).await?;
    BOOKINGS.extended.inc_by(decisions.changed.len() as u64);
    Ok(decisions.answers)
}

/// Transaction that extends the holds of these requests.
struct Extend<'r>(&'r [Request]);

impl Work for Extend<'_> {
    type Output = Decisions;

    async fn run(&mut self, tx: &mut PgConnection) -> Result<Decisions, postgres::Error> {
        let Self(requests) = *self;
        let show_id = change::only_show(requests);
        let Some(mut locked) = query::lock(tx, &change::ids(requests), show_id).await? else {
            return Ok(Decisions::not_found(requests));
        };
        let now = locked.locked_at;
        let decisions = change::decide(&mut locked, requests, |request, booking| {
            booking.extend(request.seconds, now)
        });
        let (ids, deadlines): (Vec<BookingId>, Vec<DateTime<Utc>>) = decisions
            .changed
            .iter()
            .filter_map(|id| Some((*id, locked.bookings.get(id)?.expires_at)))
            .unzip();
        let updated = sqlx::query!(
            "UPDATE bookings SET expires_at = new.expires_at
         FROM unnest($1::bigint[], $2::timestamptz[]) AS new (id, expires_at)
         WHERE bookings.id = new.id AND status = 'PENDING' AND bookings.expires_at > $3
           AND new.expires_at > bookings.expires_at AND new.expires_at <= extendable_until
           AND ($4::bigint IS NULL OR show_id = $4)",
            &ids as &[BookingId],
            &deadlines,
            now,
            show_id as Option<ShowId>,
        )
        .execute(tx)
        .await?
        .rows_affected();
        postgres::expect_rows("extended bookings", ids.len(), updated)?;
        Ok(decisions)
    }
}
