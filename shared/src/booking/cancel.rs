//! Cancel: give the seats of a hold or of a sold booking back.

use sqlx::PgConnection;

use super::{Booking, Effect, Refusal, query, seats_by_show};
use crate::{
    batch::Batch,
    postgres::{self, Session},
    show,
};

/// Decides the requests in their order, in one transaction. Each gets its own answer, in the same order: the
/// cancelled booking, or why it can't be cancelled. A repeat on a cancelled booking succeeds.
///
/// # Errors
///
/// [`postgres::Error`], and none of the requests was done, but for [`postgres::Error::OutcomeUnknown`].
pub async fn cancel(
    session: &mut Session,
    batch: &mut Batch<'_, i64>,
) -> Result<Vec<Result<Booking, Refusal>>, postgres::Error> {
    session
        .transact(batch, |tx, batch| Box::pin(cancel_in(tx, batch.members())))
        .await
}

async fn cancel_in(
    tx: &mut PgConnection,
    booking_ids: &[i64],
) -> Result<Vec<Result<Booking, Refusal>>, postgres::Error> {
    let show_ids = query::show_ids(tx, booking_ids).await?;
    show::lock(tx, &show_ids).await?;
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
            if booking.cancel(now)? == Effect::Changed {
                changed.push(booking_id);
            }
            Ok(booking.clone())
        })
        .collect();

    let updated = sqlx::query!(
        "UPDATE bookings SET status = 'CANCELLED', resolved_at = $2
         WHERE id = ANY($1) AND (status = 'CONFIRMED' OR status = 'PENDING' AND expires_at > $2)",
        &changed,
        now,
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    postgres::expect_rows("cancelled bookings", changed.len(), updated)?;
    let freed = seats_by_show(changed.iter().filter_map(|id| bookings.get(id)));
    show::add_available_seats(tx, &freed).await?;
    Ok(answers)
}
