//! Handler that reserves seats.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header::LOCATION},
    response::IntoResponse,
};
use garde::Validate;
use serde::{Deserialize, Serialize};
use shared::{
    booking::{MAX_SEATS_PER_BOOKING, reserve},
    id::ShowId,
};
use utoipa::ToSchema;

use crate::{
    input::{
        caller::{Caller, WriteBookings},
        idempotency_key::IdempotencyKey,
        integer,
        json::Json,
        name::Name,
    },
    output::{booking::BookingView, problem::Problem, replay::Replay, tagged::Tagged},
    state::AppState,
};

/// Request to reserve seats.
#[derive(Debug, Serialize, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({ "showId": 7, "userName": "Alice", "numberOfSeats": 2 })))]
pub(crate) struct ReserveSeats {
    /// Id of the show.
    #[garde(skip)]
    #[schema(inline)]
    #[serde(deserialize_with = "integer::number")]
    pub(super) show_id: ShowId,
    /// Name of the user who books, compared as written. It may contain no character that is
    /// invisible or changes how others are displayed.
    #[garde(dive)]
    #[schema(inline)]
    pub(super) user_name: Name,
    /// Number of seats. A show may allow fewer (`maxSeatsPerBooking`).
    #[garde(range(min = 1, max = MAX_SEATS_PER_BOOKING))]
    #[schema(examples(2), minimum = 1, maximum = 1000)]
    #[serde(deserialize_with = "integer::number")]
    pub(super) number_of_seats: i32,
}

/// Operation of the fingerprint of a request with an idempotency key.
///
/// A booking of a bulk request has the same one, so that it is the same request.
const OPERATION: &str = "POST /bookings";

impl ReserveSeats {
    /// Returns the request of the caller with this id as an owner of keys.
    pub(super) fn request(self, key: IdempotencyKey, owner: i64) -> reserve::Request {
        reserve::Request {
            claim: key.claim(owner, OPERATION, &self),
            show_id: self.show_id,
            user_name: self.user_name.0,
            number_of_seats: self.number_of_seats,
        }
    }
}

/// Reserve seats
///
/// The booking holds the seats for the show's `holdSeconds`. Confirm or extend it in that time;
/// otherwise it becomes `FAILED`, and the seats go back on sale. A booking gets all its seats or
/// none.
#[utoipa::path(
    post,
    path = "/bookings",
    tag = "bookings",
    operation_id = "reserveSeats",
    extensions(("x-problems" = json!(["idempotency-key-reused", "show-not-found", "not-on-sale", "too-many-seats", "user-limit-reached", "not-enough-seats"]))),
    security(("apiKey" = ["bookings:write"])),
    params(IdempotencyKey),
    request_body = ReserveSeats,
    responses((status = CREATED, description = "The seats are held. For a repeated request, this is the current state of the booking: check its `status`.", body = BookingView, headers(
            ("Location" = String, description = "Path of the booking."),
            ("ETag" = String, description = "Version of the booking."),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if an earlier request with the same key created the booking."),
        ))),
)]
pub(crate) async fn reserve(
    caller: Caller<WriteBookings>,
    State(state): State<Arc<AppState>>,
    key: IdempotencyKey,
    Json(body): Json<ReserveSeats>,
) -> Result<impl IntoResponse, Problem> {
    let request = body.request(key, caller.owner);
    let made = state.reserve.submit(request.show_id.0, request).await??;
    let location = [(LOCATION, format!("/bookings/{}", made.resource.id))];
    Ok((
        StatusCode::CREATED,
        location,
        Replay(made.is_replay),
        Tagged::<BookingView>::from(made.resource),
    ))
}
