//! An example of each problem of the API, for the OpenAPI document.

use std::sync::Arc;

use chrono::DateTime;
use shared::{
    api_key::Scope,
    booking::{BookingStatus, Refusal},
    id::{BookingId, ShowId},
    postgres,
    show::{Sale, ShowStatus},
};

use super::{field_error::FieldError, problem::Problem};
use crate::config::MAX_BODY_BYTES;

/// Returns an example of each problem.
pub(crate) fn problem_examples() -> Vec<Problem> {
    let at = |micros| DateTime::from_timestamp_micros(micros).unwrap_or_default();
    let (booking_id, show_id) = (BookingId(1042), ShowId(7));
    let (expires_at, extendable_until) = (at(1_795_550_520_123_456), at(1_795_551_300_123_456));
    let failed = || Arc::new(postgres::Error::Unavailable(sqlx::Error::PoolTimedOut));
    let refusals = [
        Refusal::ShowNotFound { show_id },
        Refusal::BookingNotFound { booking_id },
        Refusal::NotEnoughSeats {
            show_id,
            requested: 3,
            available: 2,
        },
        Refusal::NotOnSale {
            show_id,
            sale: Sale {
                status: ShowStatus::OnSale,
                start: Some(expires_at),
                end: None,
            },
        },
        Refusal::SeatsInUse {
            show_id,
            requested: 10,
            in_use: 12,
        },
        Refusal::ShowChanged { show_id },
        Refusal::WrongShowStatus {
            show_id,
            current_status: ShowStatus::Archived,
        },
        Refusal::TooManySeats {
            show_id,
            requested: 11,
            max_seats_per_booking: 10,
        },
        Refusal::UserLimitReached {
            show_id,
            requested: 3,
            max_seats_per_user: 20,
            taken: 18,
        },
        Refusal::HoldExpired {
            booking_id,
            expires_at,
        },
        Refusal::ExtensionTooLong {
            booking_id,
            extendable_until,
            seconds: 780,
        },
        Refusal::FewerSeatsBooked {
            booking_id,
            requested: 3,
            booked: 2,
        },
        Refusal::BookingConfirmed { booking_id },
        Refusal::BookingCancelled { booking_id },
        Refusal::BookingChanged {
            booking_id,
            current_status: BookingStatus::Confirmed,
        },
        Refusal::KeyReused,
    ];
    let others = [
        Problem::Malformed("The id in the path is not an integer below 2^63.".into()),
        Problem::Invalid(vec![FieldError {
            pointer: "/numberOfSeats".into(),
            detail: "lower than 1".into(),
        }]),
        Problem::CrossOrigin,
        Problem::UnknownHost,
        Problem::NoSuchRoute,
        Problem::MethodNotAllowed,
        Problem::BodyTooLarge {
            max_bytes: MAX_BODY_BYTES,
        },
        Problem::IfMatchRequired,
        Problem::NotJson,
        Problem::ContentEncoding,
        Problem::KeyRequired,
        Problem::KeyInvalid,
        Problem::ScopeRequired(Scope::BookingsWrite),
        Problem::TooManyRequests,
        Problem::TimedOut,
        Problem::Overloaded,
        Problem::Unavailable(failed()),
        Problem::NotReady(Arc::new(postgres::Error::NotReady(
            postgres::NotReady::NoSchema,
        ))),
        Problem::OutcomeUnknown(failed()),
        Problem::Internal(failed()),
    ];
    refusals
        .into_iter()
        .map(Problem::Refused)
        .chain(others)
        .collect()
}
