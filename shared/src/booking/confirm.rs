//! Confirm: sell the seats of a hold, before its deadline.

use sqlx::PgConnection;

use super::{Booking, Effect, Refusal, query};
use crate::{
    batch::Batch,
    postgres::{self, Session},
};

/// Decides the requests in their order, in one transaction. Each gets its own answer, in the same order: the
/// confirmed booking, or why it can't be confirmed. A repeat on a confirmed booking succeeds.
///
/// No seat counter changes, so only the bookings are locked, by id.
///
/// # Errors
///
/// [`postgres::Error`], and none of the requests was done, but for [`postgres::Error::OutcomeUnknown`].
pub async fn confirm(
    session: &mut Session,
    batch: &mut Batch<'_, i64>,
) -> Result<Vec<Result<Booking, Refusal>>, postgres::Error> {
    session
        .transact(batch, |tx, batch| Box::pin(confirm_in(tx, batch.members())))
        .await
}

async fn confirm_in(
    tx: &mut PgConnection,
    booking_ids: &[i64],
) -> Result<Vec<Result<Booking, Refusal>>, postgres::Error> {
    let query::Locked {
        mut bookings,
        locked_at,
    } = query::lock(tx, booking_ids).await?;
    let Some(now) = locked_at else {
        return Ok(booking_ids.iter().copied().map(query::not_found).collect());
    };

    let mut changed = Vec::new();
    let answers = booking_ids
        .iter()
        .map(|&booking_id| {
            let booking = bookings
                .get_mut(&booking_id)
                .ok_or(Refusal::BookingNotFound { booking_id })?;
            if booking.confirm(now)? == Effect::Changed {
                changed.push(booking_id);
            }
            Ok(booking.clone())
        })
        .collect();

    let updated = sqlx::query!(
        "UPDATE bookings SET status = 'CONFIRMED', resolved_at = $2
         WHERE id = ANY($1) AND status = 'PENDING' AND expires_at > $2",
        &changed,
        now,
    )
    .execute(tx)
    .await?
    .rows_affected();
    postgres::expect_rows("confirmed bookings", changed.len(), updated)?;
    Ok(answers)
}
