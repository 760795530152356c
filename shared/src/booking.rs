//! The rules of a booking. Pure: no I/O, and the time is an argument.

pub mod cancel;
mod change;
pub mod confirm;
pub mod expire;
pub mod extend;
pub mod locks;
pub mod query;
mod refusal;
pub mod reserve;

use std::{collections::BTreeMap, fmt, str::FromStr};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

pub use self::{change::Change, refusal::Refusal};

/// The most seats that one booking can take.
pub const MAX_SEATS_PER_BOOKING: i32 = 1000;

/// Where a booking stands: `PENDING → CONFIRMED | FAILED | CANCELLED`, `CONFIRMED → CANCELLED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Booking {
    /// Identity. Later bookings have higher ids.
    #[schema(minimum = 1, examples(1042))]
    pub id: i64,
    /// Whose seats.
    #[schema(minimum = 1, examples(7))]
    pub show_id: i64,
    /// Who booked.
    #[schema(min_length = 1, max_length = 200, examples("Alice"))]
    pub user_name: String,
    /// How many seats.
    #[schema(minimum = 1, maximum = 1000, examples(2))]
    pub number_of_seats: i32,
    /// Where it stands.
    pub status: BookingStatus,
    /// The hold's deadline: from this instant on it can no longer be confirmed.
    #[schema(examples("2026-11-23T20:02:00.123456Z"))]
    pub expires_at: DateTime<Utc>,
    /// The latest deadline that the hold can be given by extending it.
    #[schema(examples("2026-11-23T20:15:00.123456Z"))]
    pub extendable_until: DateTime<Utc>,
    /// What was left of the hold when this was read, in whole seconds; null when it is not held. No part of the
    /// booking's `ETag`.
    #[schema(required, minimum = 0, maximum = 86_400, examples(119))]
    pub seconds_left: Option<i64>,
    /// When the seats were taken.
    #[schema(examples("2026-11-23T20:00:00.123456Z"))]
    pub created_at: DateTime<Utc>,
    /// When the status last changed; null while it is held.
    #[schema(required, examples("2026-11-23T20:01:10.5Z"))]
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
        self.seconds_left = (self.status == BookingStatus::Pending)
            .then(|| (self.expires_at - now.max(self.created_at)).num_seconds());
        self
    }

    /// Tells this state of the booking from each earlier and later one.
    #[must_use]
    pub fn version(&self) -> String {
        let changed_at = self.resolved_at.unwrap_or(self.expires_at);
        format!("{}-{}", self.status, changed_at.timestamp_micros())
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

    /// Gives the seats up, held or sold. A repeat on a cancelled booking succeeds and changes nothing.
    ///
    /// # Errors
    ///
    /// [`Refusal::HoldExpired`] for a hold that ran out: its seats are back already, or will be.
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

    /// Makes the hold last for at least `seconds` from now on: its deadline moves later or stays. So a repeat does no
    /// harm.
    ///
    /// # Errors
    ///
    /// [`Refusal::HoldExpired`] from the deadline on, [`Refusal::BookingCancelled`], [`Refusal::BookingConfirmed`], and
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
        Ok(Effect::Changed)
    }

    /// Fails a hold that has run out. Anything else stays as it is: too early, or resolved already.
    pub fn expire(&mut self, now: DateTime<Utc>) -> Effect {
        if !self.is_overdue(now) {
            return Effect::Unchanged;
        }
        self.resolve(BookingStatus::Failed, now);
        Effect::Changed
    }

    /// This time, or the booking's last one if that is later: the clock was set back in between.
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

/// How many seats these bookings have, of each show.
fn seats_by_show<'a>(bookings: impl IntoIterator<Item = &'a Booking>) -> BTreeMap<i64, i32> {
    let mut seats = BTreeMap::new();
    for booking in bookings {
        *seats.entry(booking.show_id).or_default() += booking.number_of_seats;
    }
    seats
}

#[cfg(test)]
mod tests;
