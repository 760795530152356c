//! Confirming holds: sells their seats, before the deadline.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::{
    change::{self, Decisions, PartialChange},
    query,
    refusal::Refusal,
    rules::Booking,
    save::{freed_by_show, save},
};
use crate::{
    batch::Batch,
    metrics::BOOKINGS,
    postgres::{self, Session, Work},
    show,
};

/// Confirms bookings in one transaction. Returns an answer to each request, in the same order.
///
/// Requests are decided in order. An answer is the confirmed booking, or why it can't be confirmed.
/// A repeat on a confirmed booking succeeds.
///
/// The shows are locked only if seats go back on sale, because a part of a hold is confirmed.
///
/// # Errors
///
/// Fails if the transaction fails; nothing changed, except perhaps with
/// [`postgres::Error::OutcomeUnknown`].
pub async fn confirm(
    session: &mut Session,
    batch: &mut Batch<'_, PartialChange>,
) -> Result<Vec<Result<Booking, Refusal>>, postgres::Error> {
    let decisions = session.transact(Confirm(batch.members())).await?;
    BOOKINGS.confirmed.inc_by(decisions.changed.len() as u64);
    Ok(decisions.answers)
}

/// Transaction that confirms the bookings of these requests.
struct Confirm<'r>(&'r [PartialChange]);

impl Work for Confirm<'_> {
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
            |request, booking| booking.confirm(request.number_of_seats, now),
        );
        save(tx, &decisions.changed, now, show_id).await?;
        show::lock_and_add_available_seats(tx, &freed_by_show(&decisions.changed)).await?;
        Ok(decisions)
    }
}
