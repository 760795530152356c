//! Extending holds: moves their deadline.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{
    change::{self, Change, Decisions},
    query,
    refusal::Refusal,
    rules::Booking,
    save::{Changed, save},
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
        let decisions = change::decide(
            &mut locked,
            BTreeMap::new(),
            requests,
            |request, booking| booking.extend(request.seconds, now),
        );
        open_batches(tx, &decisions.changed, show_id).await?;
        save(tx, &decisions.changed, now, show_id).await?;
        Ok(decisions)
    }
}

/// Gives each of these holds a batch of its own, with its new deadline, in which it is then counted.
async fn open_batches(
    tx: &mut PgConnection,
    extended: &[Changed],
    show_id: Option<ShowId>,
) -> Result<(), postgres::Error> {
    let holds = extended.iter().map(|hold| &hold.after);
    let ids: Vec<BookingId> = holds.clone().map(|hold| hold.id).collect();
    let show_ids: Vec<ShowId> = holds.clone().map(|hold| hold.show_id).collect();
    let deadlines: Vec<DateTime<Utc>> = holds.map(|hold| hold.expires_at).collect();
    let opened = sqlx::query!(
        "INSERT INTO batches (show_id, id, is_extension, first_id, expires_at, held, held_seats, has_held)
         SELECT show_id, id, true, id, expires_at, 0, 0, false
         FROM unnest($1::bigint[], $2::bigint[], $3::timestamptz[]) AS hold (show_id, id, expires_at)
         WHERE $4::bigint IS NULL OR show_id = $4
         ON CONFLICT (show_id, id, is_extension) DO UPDATE SET expires_at = excluded.expires_at",
        &show_ids as &[ShowId],
        &ids as &[BookingId],
        &deadlines,
        show_id as Option<ShowId>,
    )
    .execute(tx)
    .await?
    .rows_affected();
    postgres::expect_rows("extended holds", ids.len(), opened)
}
