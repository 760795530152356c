//! Rules of a booking, as pure functions: no I/O, and the time is an argument.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::{refusal::Refusal, status::BookingStatus};
use crate::{
    id::{BookingId, ShowId},
    metadata::Metadata,
};

/// Maximum number of seats of one booking.
pub const MAX_SEATS_PER_BOOKING: i32 = 1000;

/// Booking of some seats of one show for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booking {
    /// Unique id. Later bookings have higher ids.
    pub id: BookingId,
    /// Id of the show.
    pub show_id: ShowId,
    /// Batch that it was made in, which counts it.
    pub(crate) batch_id: BookingId,
    /// Name of the user who booked.
    pub user_name: String,
    /// Number of seats. It never rises.
    pub number_of_seats: i32,
    /// Number of seats that it had besides, and that were given back or passed on; `None`: none.
    pub released_seats: Option<i32>,
    /// Booking that passed these seats on, if there is one.
    pub from: Option<BookingId>,
    /// Text by which the client's system knows the booking.
    pub reference: Option<String>,
    /// Metadata of the client's system.
    pub metadata: Option<Metadata>,
    /// Status of the booking.
    pub status: BookingStatus,
    /// Deadline of the hold: from this instant on, it can no longer be confirmed.
    pub expires_at: DateTime<Utc>,
    /// True if the deadline was moved.
    pub(crate) is_extended: bool,
    /// Latest deadline that the hold can be extended to.
    pub extendable_until: DateTime<Utc>,
    /// Time at which the seats were taken.
    pub created_at: DateTime<Utc>,
    /// Time of the last status change; `None` while the booking is held.
    pub resolved_at: Option<DateTime<Utc>>,
    /// Time as of which this is the state, on the database's clock.
    pub read_at: DateTime<Utc>,
}

/// Effect of a decision on a booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The booking changed and must be written.
    Changed,
    /// The booking already was as requested; there is nothing to write.
    Unchanged,
}

impl Booking {
    /// Returns the booking as every reader sees it at `now`.
    ///
    /// A hold that is past its deadline reads as failed at that deadline, whether or not a worker
    /// has failed it yet, and however late.
    #[must_use]
    pub fn as_of(mut self, now: DateTime<Utc>) -> Self {
        if self.is_overdue(now) || self.status == BookingStatus::Failed {
            self.resolve(BookingStatus::Failed, self.expires_at);
        }
        self.read_at = now;
        self
    }

    /// Returns the whole seconds that were left of the hold when it was read; `None` if it is not
    /// held.
    #[must_use]
    pub fn seconds_left(&self) -> Option<i64> {
        // A clock that was set back makes no hold longer.
        let now = self.read_at.max(self.created_at);
        (self.status == BookingStatus::Pending).then(|| (self.expires_at - now).num_seconds())
    }

    /// Returns the version of this state, which differs from each earlier and later version.
    #[must_use]
    pub fn version(&self) -> String {
        let changed_at = self.resolved_at.unwrap_or(self.expires_at);
        let micros = changed_at.timestamp_micros();
        match self.released_seats {
            None => format!("{}-{micros}", self.status),
            Some(released) => format!("{}-{micros}-{released}", self.status),
        }
    }

    /// Returns the number of seats that the booking takes from its show.
    pub(super) fn seats_in_use(&self) -> i32 {
        match self.status {
            BookingStatus::Pending | BookingStatus::Confirmed => self.number_of_seats,
            BookingStatus::Failed | BookingStatus::Cancelled => 0,
        }
    }

    /// Returns whether this is a hold that has expired at `now`.
    #[must_use]
    pub fn is_overdue(&self, now: DateTime<Utc>) -> bool {
        self.status == BookingStatus::Pending && now >= self.expires_at
    }

    /// Confirms the hold, or so many of its seats, which sells them. It releases the others.
    ///
    /// A repeat on a booking that is confirmed with these seats succeeds and changes nothing.
    ///
    /// # Errors
    ///
    /// Fails with [`Refusal::HoldExpired`] from the deadline on, with
    /// [`Refusal::BookingCancelled`], with [`Refusal::BookingConfirmed`] if other seats are confirmed,
    /// and with [`Refusal::FewerSeatsBooked`].
    pub fn confirm(&mut self, seats: Option<i32>, now: DateTime<Utc>) -> Result<Effect, Refusal> {
        let seats = seats.unwrap_or(self.number_of_seats);
        match self.status {
            BookingStatus::Pending if now < self.expires_at => {
                self.release(self.number_of_seats - self.of_these(seats)?);
                self.resolve(BookingStatus::Confirmed, self.not_before(now));
                Ok(Effect::Changed)
            }
            BookingStatus::Confirmed if seats == self.number_of_seats => Ok(Effect::Unchanged),
            BookingStatus::Confirmed => Err(self.confirmed()),
            BookingStatus::Pending | BookingStatus::Failed => Err(self.hold_expired()),
            BookingStatus::Cancelled => Err(self.cancelled()),
        }
    }

    /// Cancels the booking, held or sold, or so many of its seats.
    ///
    /// With all of its seats the booking is cancelled. A repeat of that, without a number of seats,
    /// succeeds and changes nothing.
    ///
    /// # Errors
    ///
    /// Fails with [`Refusal::HoldExpired`] for a hold that expired: its seats are already back on
    /// sale, or will be. With a number of seats it fails with [`Refusal::BookingCancelled`] and with
    /// [`Refusal::FewerSeatsBooked`], too.
    pub fn cancel(&mut self, seats: Option<i32>, now: DateTime<Utc>) -> Result<Effect, Refusal> {
        match (self.status, seats) {
            (BookingStatus::Cancelled, None) => Ok(Effect::Unchanged),
            _ => {
                self.give_up(seats, now)?;
                Ok(Effect::Changed)
            }
        }
    }

    /// Takes all of the booking's seats from it, which is then cancelled, or so many of them.
    /// Returns how many.
    ///
    /// # Errors
    ///
    /// Fails with [`Refusal::HoldExpired`], [`Refusal::BookingCancelled`] and
    /// [`Refusal::FewerSeatsBooked`].
    pub fn give_up(&mut self, seats: Option<i32>, now: DateTime<Utc>) -> Result<i32, Refusal> {
        match self.status {
            BookingStatus::Pending if now >= self.expires_at => return Err(self.hold_expired()),
            BookingStatus::Failed => return Err(self.hold_expired()),
            BookingStatus::Cancelled => return Err(self.cancelled()),
            BookingStatus::Pending | BookingStatus::Confirmed => {}
        }
        let seats = self.of_these(seats.unwrap_or(self.number_of_seats))?;
        if seats == self.number_of_seats {
            self.resolve(BookingStatus::Cancelled, self.not_before(now));
        } else {
            self.release(seats);
        }
        Ok(seats)
    }

    /// Extends the hold to at least `seconds` from `now`.
    ///
    /// The deadline moves later or stays, so a repeat does no harm.
    ///
    /// # Errors
    ///
    /// Fails with [`Refusal::HoldExpired`] from the deadline on, with
    /// [`Refusal::BookingCancelled`], with [`Refusal::BookingConfirmed`], and with
    /// [`Refusal::ExtensionTooLong`] beyond [`extendable_until`](Self::extendable_until).
    pub fn extend(&mut self, seconds: i32, now: DateTime<Utc>) -> Result<Effect, Refusal> {
        match self.status {
            BookingStatus::Pending if now < self.expires_at => {}
            BookingStatus::Pending | BookingStatus::Failed => return Err(self.hold_expired()),
            BookingStatus::Confirmed => return Err(self.confirmed()),
            BookingStatus::Cancelled => return Err(self.cancelled()),
        }
        let deadline = now + TimeDelta::seconds(seconds.into());
        if deadline > self.extendable_until {
            return Err(Refusal::ExtensionTooLong {
                booking_id: self.id,
                extendable_until: self.extendable_until,
                seconds: (self.extendable_until - now).num_seconds(),
            });
        }
        if deadline <= self.expires_at {
            return Ok(Effect::Unchanged);
        }
        self.expires_at = deadline;
        self.is_extended = true;
        Ok(Effect::Changed)
    }

    /// Fails a hold that has expired. Any other booking stays as it is: not yet due, or resolved.
    pub fn expire(&mut self, now: DateTime<Utc>) -> Effect {
        if !self.is_overdue(now) {
            return Effect::Unchanged;
        }
        self.resolve(BookingStatus::Failed, now);
        Effect::Changed
    }

    /// Returns `now`, or the booking's last time if that is later: the clock was set back since.
    fn not_before(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now.max(self.resolved_at.unwrap_or(self.created_at))
    }

    fn resolve(&mut self, status: BookingStatus, at: DateTime<Utc>) {
        self.status = status;
        self.resolved_at = Some(at);
    }

    /// Returns this number, if the booking has so many seats.
    fn of_these(&self, seats: i32) -> Result<i32, Refusal> {
        if seats > self.number_of_seats {
            return Err(Refusal::FewerSeatsBooked {
                booking_id: self.id,
                requested: seats,
                booked: self.number_of_seats,
            });
        }
        Ok(seats)
    }

    fn release(&mut self, seats: i32) {
        if seats > 0 {
            self.number_of_seats -= seats;
            self.released_seats = Some(self.released_seats.unwrap_or_default() + seats);
        }
    }

    fn confirmed(&self) -> Refusal {
        Refusal::BookingConfirmed {
            booking_id: self.id,
        }
    }

    fn cancelled(&self) -> Refusal {
        Refusal::BookingCancelled {
            booking_id: self.id,
        }
    }

    fn hold_expired(&self) -> Refusal {
        Refusal::HoldExpired {
            booking_id: self.id,
            expires_at: self.expires_at,
        }
    }
}

/// Sums the seats of these bookings by show.
pub(super) fn seats_by_show<'a>(
    bookings: impl IntoIterator<Item = &'a Booking>,
) -> BTreeMap<ShowId, i32> {
    let mut seats = BTreeMap::new();
    for booking in bookings {
        *seats.entry(booking.show_id).or_default() += booking.number_of_seats;
    }
    seats
}

#[cfg(test)]
mod tests;
