//! Handler that makes bookings: reserves seats, or passes on those of another booking.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, Request, State},
    http::{StatusCode, header::LOCATION},
    response::IntoResponse,
};
use garde::Validate;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use shared::{
    booking::{MAX_SEATS_PER_BOOKING, reserve, transfer},
    id::{BookingId, ShowId},
    metadata::Metadata,
    postgres::Session,
};
use utoipa::ToSchema;

use crate::{
    config::MAX_BODY_BYTES,
    input::{
        caller::{Caller, WriteBookings},
        idempotency_key::IdempotencyKey,
        integer, json, metadata,
        name::{Name, Reference},
        optional::not_null,
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
    /// Your reference of the booking, such as the number of an order. Several bookings can have the
    /// same.
    #[garde(dive)]
    #[schema(inline, nullable = false)]
    #[serde(
        default,
        deserialize_with = "not_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) reference: Option<Reference>,
    /// Your metadata of the booking: an object of at most 2,048 bytes, and of at most 5 levels.
    #[garde(skip)]
    #[schema(inline, nullable = false)]
    #[serde(
        default,
        deserialize_with = "metadata::some",
        skip_serializing_if = "Option::is_none"
    )]
    pub(super) metadata: Option<Metadata>,
}

/// Request to pass seats of a booking on to another user.
#[derive(Debug, Serialize, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({ "from": 1042, "userName": "Bob", "numberOfSeats": 1 })))]
pub(crate) struct TransferSeats {
    /// Id of the booking that has the seats.
    #[garde(skip)]
    #[schema(value_type = i64, examples(1042), minimum = -9_223_372_036_854_775_808_i64, maximum = 9_223_372_036_854_775_807_i64)]
    #[serde(deserialize_with = "integer::number")]
    from: BookingId,
    /// Id of its show, if known. A booking of another show is not found.
    #[garde(skip)]
    #[schema(inline, nullable = false)]
    #[serde(
        default,
        deserialize_with = "integer::some",
        skip_serializing_if = "Option::is_none"
    )]
    show_id: Option<ShowId>,
    /// Name of the user who gets the seats. It may contain no character that is invisible or changes
    /// how others are displayed.
    #[garde(dive)]
    #[schema(inline)]
    user_name: Name,
    /// Number of seats to pass on; all by default.
    #[garde(inner(range(min = 1, max = MAX_SEATS_PER_BOOKING)))]
    #[schema(nullable = false, examples(1), minimum = 1, maximum = 1000)]
    #[serde(
        default,
        deserialize_with = "integer::some",
        skip_serializing_if = "Option::is_none"
    )]
    number_of_seats: Option<i32>,
    /// Your reference of the new booking.
    #[garde(dive)]
    #[schema(inline, nullable = false)]
    #[serde(
        default,
        deserialize_with = "not_null",
        skip_serializing_if = "Option::is_none"
    )]
    reference: Option<Reference>,
    /// Your metadata of the new booking: an object of at most 2,048 bytes, and of at most 5 levels.
    #[garde(skip)]
    #[schema(inline, nullable = false)]
    #[serde(
        default,
        deserialize_with = "metadata::some",
        skip_serializing_if = "Option::is_none"
    )]
    metadata: Option<Metadata>,
}

/// Request for a booking. It passes seats on if it has a member `from`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = NewBooking)]
pub(crate) enum NewBooking {
    /// New seats.
    #[schema(title = "Reserve seats")]
    Reserve(ReserveSeats),
    /// Seats of another booking.
    #[schema(title = "Pass seats on")]
    Transfer(TransferSeats),
}

impl<S: Send + Sync> FromRequest<S> for NewBooking {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let body = json::read_json(request, MAX_BODY_BYTES).await?;
        let body = json::text(&body)?;
        if has_from(body) {
            return json::decode_valid(body).map(Self::Transfer);
        }
        json::decode_valid(body).map(Self::Reserve)
    }
}

/// Returns whether a body has a member `from`. A body that is not JSON has none.
fn has_from(body: &str) -> bool {
    #[derive(Deserialize)]
    struct Member {
        from: Option<IgnoredAny>,
    }
    // Most bodies need not be decoded once more.
    body.contains("from")
        && serde_json::from_str::<Member>(body).is_ok_and(|member| member.from.is_some())
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
            reference: self.reference.map(|reference| reference.0),
            metadata: self.metadata,
        }
    }
}

impl TransferSeats {
    fn request(
        self,
        key: IdempotencyKey,
        owner: i64,
        show_id: Option<ShowId>,
    ) -> transfer::Request {
        transfer::Request {
            claim: key.claim(owner, OPERATION, &self),
            from: self.from,
            show_id,
            user_name: self.user_name.0,
            number_of_seats: self.number_of_seats,
            reference: self.reference.map(|reference| reference.0),
            metadata: self.metadata,
        }
    }
}

/// Reserve seats
///
/// The booking holds the seats for the show's `holdSeconds`. Confirm or extend it in that time;
/// otherwise it becomes `FAILED`, and the seats go back on sale. A booking gets all its seats or
/// none.
///
/// With `from`, it passes seats of that booking on to a new one of another user, with the same status
/// and deadlines: no seats are taken or come back. A booking that has passed on all of its seats is
/// `CANCELLED`.
#[utoipa::path(
    post,
    path = "/bookings",
    tag = "bookings",
    operation_id = "reserveSeats",
    extensions(("x-problems" = json!(["idempotency-key-reused", "show-not-found", "not-on-sale", "too-many-seats", "user-limit-reached", "not-enough-seats", "booking-not-found", "hold-expired", "booking-cancelled", "fewer-seats-booked"]))),
    security(("apiKey" = ["bookings:write"])),
    params(IdempotencyKey),
    request_body = NewBooking,
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
    body: NewBooking,
) -> Result<impl IntoResponse, Problem> {
    let made = match body {
        NewBooking::Reserve(body) => {
            let request = body.request(key, caller.owner);
            state.reserve.submit(request.show_id.0, request).await??
        }
        NewBooking::Transfer(body) => {
            let show_id = state.locate(body.from, body.show_id).await?;
            let request = body.request(key, caller.owner, show_id);
            transfer::transfer(&mut Session::new(&state.database), request).await??
        }
    };
    let location = [(LOCATION, format!("/bookings/{}", made.resource.id))];
    Ok((
        StatusCode::CREATED,
        location,
        Replay(made.is_replay),
        Tagged::<BookingView>::from(made.resource),
    ))
}
