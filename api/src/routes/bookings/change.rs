//! Handlers that change a booking: confirm, cancel, extend.

use std::sync::Arc;

use axum::extract::State;
use garde::Validate;
use serde::{Deserialize, Serialize};
use shared::{
    booking::{Booking, MAX_SEATS_PER_BOOKING, PartialChange, Refusal, extend},
    id::BookingId,
};
use utoipa::ToSchema;

use super::OfShow;
use crate::{
    input::{
        caller::{Caller, Permission, ReadBookings, WriteBookings},
        conditions::IfMatch,
        idempotency_key::IdempotencyKey,
        integer,
        json::{Json, OptionalJson},
        path::BookingPath,
        url::{Id, Query},
    },
    output::{booking::ChangedBooking, problem::Problem, tagged::Tagged},
    state::AppState,
};

/// Part of a hold to confirm. Without it, all of its seats are confirmed. Other members are ignored.
#[derive(Debug, Default, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(examples(json!({ "numberOfSeats": 2 })))]
pub(crate) struct ConfirmSeats {
    /// Number of seats to confirm. The others go back on sale.
    #[garde(inner(range(min = 1, max = MAX_SEATS_PER_BOOKING)))]
    #[schema(nullable = false, examples(2), minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "integer::some")]
    number_of_seats: Option<i32>,
}

/// Confirm a booking
///
/// Sells the held seats, or so many of them: the others go back on sale. Safe to retry.
#[utoipa::path(
    post,
    path = "/bookings/{id}/confirm",
    tag = "bookings",
    operation_id = "confirmBooking",
    extensions(("x-problems" = json!(["booking-not-found", "hold-expired", "booking-cancelled", "booking-confirmed", "fewer-seats-booked", "booking-changed"]))),
    security(("apiKey" = ["bookings:write"])),
    params(BookingPath, OfShow, IfMatch),
    request_body = Option<ConfirmSeats>,
    responses((status = OK, description = "The booking is confirmed.", body = ChangedBooking, headers(("ETag" = String, description = "Version of the booking.")))),
)]
pub(crate) async fn confirm(
    caller: Caller<WriteBookings>,
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id<BookingId>,
    Query(OfShow { show_id }): Query<OfShow>,
    IfMatch(only_if): IfMatch,
    OptionalJson(ConfirmSeats { number_of_seats }): OptionalJson<ConfirmSeats>,
) -> Result<Tagged<ChangedBooking>, Problem> {
    let change = state.change(booking_id, show_id, only_if).await?;
    let key = change.key();
    let request = PartialChange {
        change,
        number_of_seats,
    };
    answer(&caller, state.confirm.submit(key, request).await?)
}

/// Part of a booking to cancel. Without it, the booking is cancelled. Other members are ignored.
#[derive(Debug, Default, Serialize, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(examples(json!({ "numberOfSeats": 1 })))]
pub(crate) struct CancelSeats {
    /// Number of seats to cancel. With all of its seats the booking is cancelled.
    #[garde(inner(range(min = 1, max = MAX_SEATS_PER_BOOKING)))]
    #[schema(nullable = false, examples(1), minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "integer::some")]
    number_of_seats: Option<i32>,
}

/// Cancel a booking
///
/// Puts the seats, or so many of them, back on sale, whether they are held or sold. Safe to retry;
/// with `numberOfSeats` only with the same `Idempotency-Key`.
#[utoipa::path(
    post,
    path = "/bookings/{id}/cancel",
    tag = "bookings",
    operation_id = "cancelBooking",
    extensions(("x-problems" = json!(["booking-not-found", "hold-expired", "booking-cancelled", "fewer-seats-booked", "idempotency-key-reused", "booking-changed"]))),
    security(("apiKey" = ["bookings:write"])),
    params(BookingPath, OfShow, IfMatch, IdempotencyKey),
    request_body = Option<CancelSeats>,
    responses((status = OK, description = "The booking is cancelled, or has fewer seats.", body = ChangedBooking, headers(("ETag" = String, description = "Version of the booking.")))),
)]
pub(crate) async fn cancel(
    caller: Caller<WriteBookings>,
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id<BookingId>,
    Query(OfShow { show_id }): Query<OfShow>,
    IfMatch(only_if): IfMatch,
    idempotency: IdempotencyKey,
    OptionalJson(body): OptionalJson<CancelSeats>,
) -> Result<Tagged<ChangedBooking>, Problem> {
    let mut change = state.change(booking_id, show_id, only_if).await?;
    let number_of_seats = body.number_of_seats;
    if number_of_seats.is_some() {
        let operation = "POST /bookings/{id}/cancel";
        change.claim = idempotency.claim(caller.owner, operation, &(booking_id, body));
    }
    let key = change.key();
    let request = PartialChange {
        change,
        number_of_seats,
    };
    answer(&caller, state.cancel.submit(key, request).await?)
}

/// Request to extend a hold.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExtendHold {
    /// Minimum time that the hold lasts from now on, in seconds.
    #[garde(range(min = 1, max = 86_400))]
    #[schema(examples(300), minimum = 1, maximum = 86_400)]
    #[serde(deserialize_with = "integer::number")]
    seconds: i32,
}

/// Extend a hold
///
/// Makes the hold last at least `seconds` from now on. It never ends sooner than before, so a retry
/// is safe. A show limits the total duration of a hold (`maxHoldSeconds`).
#[utoipa::path(
    post,
    path = "/bookings/{id}/extend",
    tag = "bookings",
    operation_id = "extendHold",
    extensions(("x-problems" = json!(["booking-not-found", "hold-expired", "booking-cancelled", "booking-confirmed", "extension-too-long", "booking-changed"]))),
    security(("apiKey" = ["bookings:write"])),
    params(BookingPath, OfShow, IfMatch),
    request_body = ExtendHold,
    responses((status = OK, description = "The hold lasts at least that long.", body = ChangedBooking, headers(("ETag" = String, description = "Version of the booking.")))),
)]
pub(crate) async fn extend(
    caller: Caller<WriteBookings>,
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id<BookingId>,
    Query(OfShow { show_id }): Query<OfShow>,
    IfMatch(only_if): IfMatch,
    Json(ExtendHold { seconds }): Json<ExtendHold>,
) -> Result<Tagged<ChangedBooking>, Problem> {
    let change = state.change(booking_id, show_id, only_if).await?;
    let key = change.key();
    let request = extend::Request { change, seconds };
    answer(&caller, state.extend.submit(key, request).await?)
}

/// Returns the response to a change.
///
/// It hides the user's name from a key that may only write: otherwise such a key could read any
/// booking by repeating a change.
fn answer(
    caller: &Caller<WriteBookings>,
    changed: Result<Booking, Refusal>,
) -> Result<Tagged<ChangedBooking>, Problem> {
    let may_read = caller.may_also(ReadBookings::SCOPE);
    Ok(ChangedBooking::tagged(changed?, may_read))
}
