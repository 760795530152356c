//! Handlers that change a booking: confirm, cancel, extend.

use std::sync::Arc;

use axum::extract::State;
use garde::Validate;
use serde::Deserialize;
use shared::{
    booking::{Booking, Refusal, extend},
    id::BookingId,
};
use utoipa::ToSchema;

use super::OfShow;
use crate::{
    input::{
        caller::{Caller, Permission, ReadBookings, WriteBookings},
        conditions::IfMatch,
        integer,
        json::Json,
        path::BookingPath,
        url::{Id, Query},
    },
    output::{booking::ChangedBooking, problem::Problem, tagged::Tagged},
    state::AppState,
};

/// Confirm a booking
///
/// Sells the held seats. Safe to retry.
#[utoipa::path(
    post,
    path = "/bookings/{id}/confirm",
    tag = "bookings",
    operation_id = "confirmBooking",
    extensions(("x-problems" = json!(["booking-not-found", "hold-expired", "booking-cancelled", "booking-changed"]))),
    security(("apiKey" = ["bookings:write"])),
    params(BookingPath, OfShow, IfMatch),
    responses((status = OK, description = "The booking is confirmed.", body = ChangedBooking, headers(("ETag" = String, description = "Version of the booking.")))),
)]
pub(crate) async fn confirm(
    caller: Caller<WriteBookings>,
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id<BookingId>,
    Query(OfShow { show_id }): Query<OfShow>,
    IfMatch(only_if): IfMatch,
) -> Result<Tagged<ChangedBooking>, Problem> {
    let change = state.change(booking_id, show_id, only_if).await?;
    answer(&caller, state.confirm.submit(change.key(), change).await?)
}

/// Cancel a booking
///
/// Puts the seats back on sale, whether they are held or sold. Safe to retry.
#[utoipa::path(
    post,
    path = "/bookings/{id}/cancel",
    tag = "bookings",
    operation_id = "cancelBooking",
    extensions(("x-problems" = json!(["booking-not-found", "hold-expired", "booking-changed"]))),
    security(("apiKey" = ["bookings:write"])),
    params(BookingPath, OfShow, IfMatch),
    responses((status = OK, description = "The booking is cancelled.", body = ChangedBooking, headers(("ETag" = String, description = "Version of the booking.")))),
)]
pub(crate) async fn cancel(
    caller: Caller<WriteBookings>,
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id<BookingId>,
    Query(OfShow { show_id }): Query<OfShow>,
    IfMatch(only_if): IfMatch,
) -> Result<Tagged<ChangedBooking>, Problem> {
    let change = state.change(booking_id, show_id, only_if).await?;
    answer(&caller, state.cancel.submit(change.key(), change).await?)
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
