//! Rules of a booking, as pure functions: no I/O, and the time is an argument.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::{refusal::Refusal, status::BookingStatus};
use crate::id::{BookingId, ShowId};

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
    /// Number of seats.
    pub number_of_seats: i32,
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
        format!("{}-{}", self.status, changed_at.timestamp_micros())
    }

    /// Returns whether this is a hold that has expired at `now`.
    #[must_use]
    pub fn is_overdue(&self, now: DateTime<Utc>) -> bool {
        self.status == BookingStatus::Pending && now >= self.expires_at
    }

    /// Confirms the hold, which sells its seats.
    ///
    /// A repeat on a confirmed booking succeeds and changes nothing.
    ///
    /// # Errors
    ///
    /// Fails with [`Refusal::HoldExpired`] from the deadline on, and with
    /// [`Refusal::BookingCancelled`].
    pub fn confirm(&mut self, now: DateTime<Utc>) -> Result<Effect, Refusal> {
        match self.status {
            BookingStatus::Pending if now < self.expires_at => {
                self.resolve(BookingStatus::Confirmed, self.not_before(now));
                Ok(Effect::Changed)
            }
            BookingStatus::Confirmed => Ok(Effect::Unchanged),
            BookingStatus::Pending | BookingStatus::Failed => Err(self.hold_expired()),
            BookingStatus::Cancelled => Err(Refusal::BookingCancelled {
                booking_id: self.id,
            }),
        }
    }

    /// Cancels the booking, held or sold.
    ///
    /// A repeat on a cancelled booking succeeds and changes nothing.
    ///
    /// # Errors
    ///
    /// Fails with [`Refusal::HoldExpired`] for a hold that expired: its seats are already back on
    /// sale, or will be.
    pub fn cancel(&mut self, now: DateTime<Utc>) -> Result<Effect, Refusal> {
        match self.status {
            BookingStatus::Pending if now >= self.expires_at => Err(self.hold_expired()),
            BookingStatus::Pending | BookingStatus::Confirmed => {
                self.resolve(BookingStatus::Cancelled, self.not_before(now));
                Ok(Effect::Changed)
            }
            BookingStatus::Cancelled => Ok(Effect::Unchanged),
            BookingStatus::Failed => Err(self.hold_expired()),
        }
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
            BookingStatus::Confirmed => {
                return Err(Refusal::BookingConfirmed {
                    booking_id: self.id,
                });
            }
            BookingStatus::Cancelled => {
                return Err(Refusal::BookingCancelled {
                    booking_id: self.id,
                });
            }
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
