//! Why a request is refused.

use chrono::{DateTime, SecondsFormat, Utc};
use thiserror::Error;

use super::Booking;

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
    #[error("The hold of booking {booking_id} ended at {}: its seats are back on sale.", text(*expires_at))]
    HoldExpired {
        /// The booking.
        booking_id: i64,
        /// Its deadline.
        expires_at: DateTime<Utc>,
    },
    /// The show does not let one booking have so many seats.
    #[error(
        "A booking of show {show_id} has at most {max_seats_per_booking} seats, {requested} were requested."
    )]
    TooManySeats {
        /// The show.
        show_id: i64,
        /// Seats requested.
        requested: i32,
        /// Seats that one booking can have.
        max_seats_per_booking: i32,
    },
    /// The user would have more seats than the show lets one have.
    #[error(
        "A user of show {show_id} has at most {max_seats_per_user} seats; this one has {taken}, {requested} more were \
         requested."
    )]
    UserLimitReached {
        /// The show.
        show_id: i64,
        /// Seats requested.
        requested: i32,
        /// Seats that one user can have.
        max_seats_per_user: i32,
        /// Seats that this user has, held or confirmed.
        taken: i64,
    },
    /// The hold can't be made to last that long.
    #[error("The hold of booking {booking_id} can be extended until {}: by {seconds} s from now on.", text(*extendable_until))]
    ExtensionTooLong {
        /// The booking.
        booking_id: i64,
        /// The latest deadline.
        extendable_until: DateTime<Utc>,
        /// Whole seconds from now until then.
        seconds: i64,
    },
    /// The booking is sold: it is no hold any more.
    #[error("Booking {booking_id} is confirmed.")]
    BookingConfirmed {
        /// The booking.
        booking_id: i64,
    },
    /// The booking is no longer as the client saw it.
    #[error("Booking {booking_id} is not as it was with that ETag: it is {} now, or held for longer. Read it again, and decide anew.", current.status)]
    BookingChanged {
        /// The booking.
        booking_id: i64,
        /// As it is now.
        current: Box<Booking>,
    },
    /// The idempotency key has been used for another request.
    #[error(
        "This idempotency key was used for another request: use a new one for each thing that you want."
    )]
    KeyReused,
    /// The booking was cancelled.
    #[error("Booking {booking_id} is cancelled.")]
    BookingCancelled {
        /// The booking.
        booking_id: i64,
    },
}

/// As in JSON.
fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
