//! Reasons why a request is refused.

use chrono::{DateTime, SecondsFormat, Utc};
use thiserror::Error;

use super::status::BookingStatus;
use crate::{
    id::{BookingId, ShowId},
    show::sale::{Sale, ShowStatus},
};

/// Reason why the current state does not allow a well-formed request. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No show has this id.
    #[error("There is no show {show_id}.")]
    ShowNotFound {
        /// Id that was requested.
        show_id: ShowId,
    },
    /// No booking has this id.
    #[error("There is no booking {booking_id}.")]
    BookingNotFound {
        /// Id that was requested.
        booking_id: BookingId,
    },
    /// The status or the sales window of the show does not allow to take seats now.
    #[error("Show {show_id} is not on sale: {}.", reason(*sale))]
    NotOnSale {
        /// Id of the show.
        show_id: ShowId,
        /// Status and sales window of the show.
        sale: Sale,
    },
    /// The show would have fewer seats than pending and confirmed bookings have.
    #[error("Show {show_id} can't have {requested} seats: {in_use} are in use.")]
    SeatsInUse {
        /// Id of the show.
        show_id: ShowId,
        /// Number of seats that the show was to have.
        requested: i32,
        /// Seats that pending and confirmed bookings have.
        in_use: i32,
    },
    /// The show no longer has the edition that the client named.
    #[error("Show {show_id} has changed since that ETag. Fetch it again before you retry.")]
    ShowChanged {
        /// Id of the show.
        show_id: ShowId,
    },
    /// The status of the show does not allow the change.
    #[error("The status of show {show_id} is {current_status}, which does not allow this.")]
    WrongShowStatus {
        /// Id of the show.
        show_id: ShowId,
        /// Status of the show now.
        current_status: ShowStatus,
    },
    /// A new value does not fit another value of the show.
    #[error("{field}: {detail}.")]
    InconsistentShow {
        /// Name of the field, as in JSON.
        field: &'static str,
        /// Why it does not fit.
        detail: String,
    },
    /// The show has fewer available seats than requested; overdue holds count as available.
    #[error("Show {show_id} has {available} seats available, {requested} were requested.")]
    NotEnoughSeats {
        /// Id of the show.
        show_id: ShowId,
        /// Number of seats requested.
        requested: i32,
        /// Number of seats available when this was decided.
        available: i32,
    },
    /// The hold has expired.
    #[error(
        "The hold of booking {booking_id} expired at {}; its seats are back on sale.",
        text(*expires_at)
    )]
    HoldExpired {
        /// Id of the booking.
        booking_id: BookingId,
        /// Deadline of the hold.
        expires_at: DateTime<Utc>,
    },
    /// The show does not allow one booking to have this many seats.
    #[error(
        "A booking for show {show_id} can have at most {max_seats_per_booking} seats; {requested} \
         were requested."
    )]
    TooManySeats {
        /// Id of the show.
        show_id: ShowId,
        /// Number of seats requested.
        requested: i32,
        /// Maximum number of seats of one booking.
        max_seats_per_booking: i32,
    },
    /// The user would have more seats than the show allows one user.
    #[error(
        "A user can have at most {max_seats_per_user} seats of show {show_id}; this user has \
         {taken} and requested {requested} more."
    )]
    UserLimitReached {
        /// Id of the show.
        show_id: ShowId,
        /// Number of seats requested.
        requested: i32,
        /// Maximum number of seats of one user.
        max_seats_per_user: i32,
        /// Number of seats that this user has, held or confirmed.
        taken: i64,
    },
    /// The hold can't be extended that far.
    #[error(
        "The hold of booking {booking_id} can be extended until {} at the latest, which is \
         {seconds} s from now.",
        text(*extendable_until)
    )]
    ExtensionTooLong {
        /// Id of the booking.
        booking_id: BookingId,
        /// Latest deadline that the hold can be extended to.
        extendable_until: DateTime<Utc>,
        /// Whole seconds from now until that deadline.
        seconds: i64,
    },
    /// The booking is confirmed, and no longer a hold.
    #[error("Booking {booking_id} is already confirmed.")]
    BookingConfirmed {
        /// Id of the booking.
        booking_id: BookingId,
    },
    /// The booking has fewer seats than the request is about.
    #[error("Booking {booking_id} has {booked} seats; the request is about {requested}.")]
    FewerSeatsBooked {
        /// Id of the booking.
        booking_id: BookingId,
        /// Number of seats that the request is about.
        requested: i32,
        /// Number of seats that the booking has.
        booked: i32,
    },
    /// The booking no longer has the version that the client named.
    #[error(
        "Booking {booking_id} no longer matches that ETag: its status is now {}, or its hold was \
         extended. Fetch it again before you retry.",
        current_status
    )]
    BookingChanged {
        /// Id of the booking.
        booking_id: BookingId,
        /// Status of the booking now.
        current_status: BookingStatus,
    },
    /// The idempotency key has been used for another request.
    #[error(
        "This idempotency key was used for a different request. Use a new key for each new request."
    )]
    KeyReused,
    /// The booking was cancelled.
    #[error("Booking {booking_id} is cancelled.")]
    BookingCancelled {
        /// Id of the booking.
        booking_id: BookingId,
    },
}

/// Formats a time as in JSON.
fn text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Says why seats can't be taken.
fn reason(sale: Sale) -> String {
    if sale.status != ShowStatus::OnSale {
        return format!("its status is {}", sale.status);
    }
    match (sale.start, sale.end) {
        (Some(start), Some(end)) => format!("its sale is from {} until {}", text(start), text(end)),
        (Some(start), None) => format!("its sale begins at {}", text(start)),
        (None, Some(end)) => format!("its sale ended at {}", text(end)),
        (None, None) => "it has no sales window".to_owned(),
    }
}
