//! Cancelling bookings: puts the seats of a hold or of a confirmed booking back on sale.

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
    idempotency,
    metrics::BOOKINGS,
    postgres::{self, Session, Work},
    show,
};

/// Cancels bookings in one transaction. Returns an answer to each request, in the same order.
///
/// Requests are decided in order. An answer is the booking without these seats, or why they can't be
/// cancelled. A repeat on a cancelled booking succeeds.
///
/// # Errors
///
/// Fails if the transaction fails; nothing changed, except perhaps with
/// [`postgres::Error::OutcomeUnknown`].
pub async fn cancel(
    session: &mut Session,
    batch: &mut Batch<'_, PartialChange>,
) -> Result<Vec<Result<Booking, Refusal>>, postgres::Error> {
    let decisions = session.transact(Cancel(batch.members())).await?;
    BOOKINGS.cancelled.inc_by(decisions.changed.len() as u64);
    Ok(decisions.answers)
}

/// Transaction that cancels the bookings of these requests.
struct Cancel<'r>(&'r [PartialChange]);

impl Work for Cancel<'_> {
    type Output = Decisions;

    async fn run(&mut self, tx: &mut PgConnection) -> Result<Decisions, postgres::Error> {
        let Self(requests) = *self;
        let show_id = change::only_show(requests);
        let Some(mut locked) = query::lock(tx, &change::ids(requests), show_id).await? else {
            return Ok(Decisions::not_found(requests));
        };
        let now = locked.locked_at;
        let claims = requests.iter().filter_map(|r| r.change.claim.as_ref());
        let used = idempotency::find(tx, claims.map(|claim| &claim.key)).await?;
        let decisions = change::decide(&mut locked, used, requests, |request, booking| {
            booking.cancel(request.number_of_seats, now)
        });
        save(tx, &decisions.changed, now, show_id).await?;
        show::lock_and_add_available_seats(tx, &freed_by_show(&decisions.changed)).await?;
        idempotency::record(tx, decisions.claimed()).await?;
        Ok(decisions)
    }
}
