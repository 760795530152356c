//! Writing changed bookings, and counting them in their batches.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{rules::Booking, status::BookingStatus};
use crate::{
    id::{BookingId, ShowId},
    postgres,
};

/// Changed booking, locked by the transaction.
#[derive(Debug, Clone)]
pub(super) struct Changed {
    /// State in the database.
    pub before: Booking,
    /// State to write.
    pub after: Booking,
}

impl Changed {
    /// Returns the number of seats that go back on sale.
    pub(super) fn freed_seats(&self) -> i32 {
        self.before.seats_in_use() - self.after.seats_in_use()
    }
}

/// Sums the seats that go back on sale by show.
pub(super) fn freed_by_show(changed: &[Changed]) -> BTreeMap<ShowId, i32> {
    let mut freed = BTreeMap::new();
    for booking in changed {
        *freed.entry(booking.after.show_id).or_default() += booking.freed_seats();
    }
    freed.retain(|_, seats| *seats != 0);
    freed
}

/// Writes these bookings, and counts them in their batches.
///
/// `now` is the time at which they were decided. It locks the batches: after bookings, and before
/// shows. If a show is given, it is the show of all bookings.
pub(super) async fn save(
    tx: &mut PgConnection,
    changed: &[Changed],
    now: DateTime<Utc>,
    show_id: Option<ShowId>,
) -> Result<(), postgres::Error> {
    if changed.is_empty() {
        return Ok(());
    }
    let before = || changed.iter().map(|booking| &booking.before);
    let after = || changed.iter().map(|booking| &booking.after);
    // Seldom: the arrays are else empty, since these columns cost each confirmation something.
    let lose_seats = changed
        .iter()
        .any(|booking| booking.before.number_of_seats != booking.after.number_of_seats);
    let parts = || after().filter(|_| lose_seats);
    let counts = Counts::of(changed);
    let (batches, counted): (Vec<Batch>, Vec<Count>) = counts.0.into_iter().unzip();
    let written = sqlx::query_file!(
        "src/booking/save.sql",
        &after().map(|b| b.id).collect::<Vec<_>>() as &[BookingId],
        &before().map(|b| b.status.as_str()).collect::<Vec<_>>() as &[&str],
        &after().map(|b| b.status.as_str()).collect::<Vec<_>>() as &[&str],
        &after().map(|b| b.resolved_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &after().map(|b| b.expires_at).collect::<Vec<_>>(),
        &batches.iter().map(|b| b.show_id).collect::<Vec<_>>() as &[ShowId],
        &batches.iter().map(|b| b.id).collect::<Vec<_>>() as &[BookingId],
        &batches.iter().map(|b| b.is_extension).collect::<Vec<_>>(),
        &counted.iter().map(|c| c.held).collect::<Vec<_>>(),
        &counted.iter().map(|c| c.held_seats).collect::<Vec<_>>(),
        &counted.iter().map(|c| c.confirmed).collect::<Vec<_>>(),
        &counted.iter().map(|c| c.failed).collect::<Vec<_>>(),
        &counted.iter().map(|c| c.cancelled).collect::<Vec<_>>(),
        now,
        show_id as Option<ShowId>,
        &parts().map(|b| b.number_of_seats).collect::<Vec<_>>(),
        &parts().map(|b| b.released_seats).collect::<Vec<_>>() as &[Option<i32>],
    )
    .fetch_one(tx)
    .await?;
    postgres::expect_rows(
        "changed bookings",
        changed.len(),
        written.bookings.unsigned_abs(),
    )?;
    postgres::expect_rows("batches", batches.len(), written.batches.unsigned_abs())
}

/// Key of a row of `batches`, in the order in which rows are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Batch {
    show_id: ShowId,
    id: BookingId,
    is_extension: bool,
}

/// Addition to the counts of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    held: i32,
    held_seats: i32,
    confirmed: i32,
    failed: i32,
    cancelled: i32,
}

/// Additions to the counts of batches.
#[derive(Debug, Default)]
struct Counts(BTreeMap<Batch, Count>);

impl Counts {
    fn of(changed: &[Changed]) -> Self {
        let mut counts = Self::default();
        for Changed { before, after } in changed {
            counts.add(before, -1);
            counts.add(after, 1);
        }
        counts.0.retain(|_, count| *count != Count::default());
        counts
    }

    /// Counts the booking in its batch so many times.
    fn add(&mut self, booking: &Booking, times: i32) {
        // A hold that was extended has a deadline of its own.
        let is_extension = booking.is_extended && booking.status == BookingStatus::Pending;
        let batch = Batch {
            show_id: booking.show_id,
            id: if is_extension {
                booking.id
            } else {
                booking.batch_id
            },
            is_extension,
        };
        let count = self.0.entry(batch).or_default();
        match booking.status {
            BookingStatus::Pending => {
                count.held += times;
                count.held_seats += times * booking.number_of_seats;
            }
            BookingStatus::Confirmed => count.confirmed += times,
            BookingStatus::Failed => count.failed += times,
            BookingStatus::Cancelled => count.cancelled += times,
        }
    }
}

#[cfg(test)]
mod tests;
