//! The rules of a booking. Pure: no I/O, and the time is an argument.

pub mod cancel;
pub mod confirm;
pub mod expire;
pub mod query;
pub mod reserve;

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most seats that one booking can take.
pub const MAX_SEATS_PER_BOOKING: i32 = 1000;

/// Where a booking stands: `PENDING → CONFIRMED | FAILED | CANCELLED`, `CONFIRMED → CANCELLED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BookingStatus {
    /// A hold: the seats are taken until the deadline.
    Pending,
    /// The seats are sold.
    Confirmed,
    /// The hold ran out; the seats are back.
    Failed,
    /// Given up by the client; the seats are back.
    Cancelled,
}

impl BookingStatus {
    /// The word for it in JSON and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Confirmed => "CONFIRMED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl fmt::Display for BookingStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is none of the four words of [`BookingStatus`].
#[derive(Debug, Error)]
#[error("{0:?} is no booking status (PENDING, CONFIRMED, FAILED or CANCELLED)")]
pub struct UnknownStatus(String);

impl FromStr for BookingStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        [
            Self::Pending,
            Self::Confirmed,
            Self::Failed,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}

/// Some seats of one show, for one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Booking {
    /// Identity.
    pub id: i64,
    /// Whose seats.
    pub show_id: i64,
    /// Who booked: 1 to 200 characters.
    pub user_name: String,
    /// How many seats: 1 to [`MAX_SEATS_PER_BOOKING`].
    pub number_of_seats: i32,
    /// Where it stands.
    pub status: BookingStatus,
    /// The hold's deadline: from this instant on it can no longer be confirmed.
    pub expires_at: DateTime<Utc>,
    /// When the seats were taken.
    pub created_at: DateTime<Utc>,
    /// When the status last changed; none while pending.
    pub resolved_at: Option<DateTime<Utc>>,
}

/// What a decision asks the transaction to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The booking changed and must be written.
    Changed,
    /// It already was as requested; there is nothing to write.
    Unchanged,
}

impl Booking {
    /// The booking as every reader sees it at `now`: a hold that ran out failed at its deadline, whether
    /// or not a worker has come by, and however late.
    #[must_use]
    pub fn as_of(mut self, now: DateTime<Utc>) -> Self {
        if self.is_overdue(now) || self.status == BookingStatus::Failed {
            self.resolve(BookingStatus::Failed, self.expires_at);
        }
        self
    }

    /// Whether it is a hold that has run out at `now`.
    #[must_use]
    pub fn is_overdue(&self, now: DateTime<Utc>) -> bool {
        self.status == BookingStatus::Pending && now >= self.expires_at
    }

    /// Sells the seats. A repeat on a confirmed booking succeeds and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Refusal::HoldExpired`] from the deadline on, [`Refusal::BookingCancelled`].
    pub fn confirm(&mut self, now: DateTime<Utc>) -> Result<Effect, Refusal> {
        match self.status {
            BookingStatus::Pending if now < self.expires_at => {
                self.resolve(BookingStatus::Confirmed, now);
                Ok(Effect::Changed)
            }
            BookingStatus::Confirmed => Ok(Effect::Unchanged),
            BookingStatus::Pending | BookingStatus::Failed => Err(self.hold_expired()),
            BookingStatus::Cancelled => Err(Refusal::BookingCancelled {
                booking_id: self.id,
            }),
        }
    }

    /// Gives the seats up, held or sold. A repeat on a cancelled booking succeeds and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Refusal::HoldExpired`] for a hold that ran out: its seats are back already, or will be.
    pub fn cancel(&mut self, now: DateTime<Utc>) -> Result<Effect, Refusal> {
        match self.status {
            BookingStatus::Pending if now >= self.expires_at => Err(self.hold_expired()),
            BookingStatus::Pending | BookingStatus::Confirmed => {
                self.resolve(BookingStatus::Cancelled, now);
                Ok(Effect::Changed)
            }
            BookingStatus::Cancelled => Ok(Effect::Unchanged),
            BookingStatus::Failed => Err(self.hold_expired()),
        }
    }

    /// Fails a hold that has run out. Anything else stays as it is: too early, or resolved already.
    pub fn expire(&mut self, now: DateTime<Utc>) -> Effect {
        if !self.is_overdue(now) {
            return Effect::Unchanged;
        }
        self.resolve(BookingStatus::Failed, now);
        Effect::Changed
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

/// How many seats these bookings have, of each show.
fn seats_by_show<'a>(bookings: impl IntoIterator<Item = &'a Booking>) -> BTreeMap<i64, i32> {
    let mut seats = BTreeMap::new();
    for booking in bookings {
        *seats.entry(booking.show_id).or_default() += booking.number_of_seats;
    }
    seats
}

/// A well-formed request that the state of things does not allow. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No show has this id.
    #[error("There is no show {show_id}.")]
    ShowNotFound {
        /// As requested.
        show_id: i64,
    },
    /// No booking has this id.
    #[error("There is no booking {booking_id}.")]
    BookingNotFound {
        /// As requested.
        booking_id: i64,
    },
    /// The show has fewer available seats than requested, overdue holds counted as available.
    #[error("Show {show_id} has {available} seats available, {requested} were requested.")]
    NotEnoughSeats {
        /// The show.
        show_id: i64,
        /// Seats requested.
        requested: i32,
        /// Seats available when this was decided.
        available: i32,
    },
    /// The hold ran out before it was confirmed.
    #[error("The hold of booking {booking_id} ended at {}.", expires_at.to_rfc3339())]
    HoldExpired {
        /// The booking.
        booking_id: i64,
        /// Its deadline.
        expires_at: DateTime<Utc>,
    },
    /// The booking was cancelled.
    #[error("Booking {booking_id} is cancelled.")]
    BookingCancelled {
        /// The booking.
        booking_id: i64,
    },
}

#[cfg(test)]
mod tests;
