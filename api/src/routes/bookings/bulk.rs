//! Handler that reserves seats for several bookings.

use std::{sync::Arc, time::Duration};

use axum::{Json as JsonResponse, extract::State, response::Response};
use garde::Validate;
use serde::Deserialize;
use shared::{booking::MAX_SEATS_PER_BOOKING, id::ShowId, metadata::Metadata};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::reserve::ReserveSeats;
use crate::{
    config::MAX_BULK_BODY_BYTES,
    input::{
        array,
        caller::{Caller, WriteBookings},
        idempotency_key::{IdempotencyKey, KeyInBody, NoIdempotencyKey},
        integer,
        json::Json,
        metadata,
        name::{Name, Reference},
        optional::not_null,
    },
    output::{
        bulk_results::{BulkResult, BulkResults},
        large_body::LargeBodyPermit,
        problem::Problem,
    },
    state::AppState,
};

/// Maximum number of bookings in a bulk request.
const MAX_BOOKINGS: usize = 500;

/// Timeout of the bookings, shorter than the timeout of the request.
///
/// So that a booking that takes long, such as one of a locked show, costs none of the others its
/// answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Request to reserve seats for several bookings.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({ "bookings": [
    { "showId": 7, "userName": "Alice", "numberOfSeats": 2, "idempotencyKey": "2026-11-23/1" },
    { "showId": 7, "userName": "Bob", "numberOfSeats": 1 },
] })))]
pub(crate) struct ReserveSeatsInBulk {
    /// Bookings to make, each as in `POST /bookings`.
    #[garde(length(min = 1, max = MAX_BOOKINGS), dive)]
    #[schema(min_items = 1, max_items = 500)]
    #[serde(deserialize_with = "array::objects::<_, _, MAX_BOOKINGS>")]
    bookings: Vec<BulkReservation>,
}

/// Request to reserve seats for one of several bookings.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BulkReservation {
    /// Id of the show.
    #[garde(skip)]
    #[schema(inline, examples(7))]
    #[serde(deserialize_with = "integer::number")]
    show_id: ShowId,
    /// Name of the user who books, compared as written. It may contain no character that is
    /// invisible or changes how others are displayed.
    #[garde(dive)]
    #[schema(inline)]
    user_name: Name,
    /// Number of seats. A show may allow fewer (`maxSeatsPerBooking`).
    #[garde(range(min = 1, max = MAX_SEATS_PER_BOOKING))]
    #[schema(examples(2), minimum = 1, maximum = 1000)]
    #[serde(deserialize_with = "integer::number")]
    number_of_seats: i32,
    /// Your reference of the booking.
    #[garde(dive)]
    #[schema(inline, nullable = false)]
    #[serde(default, deserialize_with = "not_null")]
    reference: Option<Reference>,
    /// Your metadata of the booking.
    #[garde(skip)]
    #[schema(inline, nullable = false)]
    #[serde(default, deserialize_with = "metadata::some")]
    metadata: Option<Metadata>,
    /// A text of your choice that makes this booking safe to retry, in another bulk request or with
    /// `POST /bookings` and the header `Idempotency-Key`.
    #[garde(dive)]
    #[schema(
        value_type = Option<String>,
        examples("0b8ae02f-5e0c-4b9a-9d37-3a1f6f0d2c11"),
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]*$"
    )]
    idempotency_key: Option<KeyInBody>,
}

impl BulkReservation {
    /// Splits it into the body and the key of a `POST /bookings`.
    fn split(self) -> (ReserveSeats, IdempotencyKey) {
        let body = ReserveSeats {
            show_id: self.show_id,
            user_name: self.user_name,
            number_of_seats: self.number_of_seats,
            reference: self.reference,
            metadata: self.metadata,
        };
        (body, self.idempotency_key.into())
    }
}

/// Reserve seats for several bookings
///
/// Does for each booking what `POST /bookings` does, and answers with a result for each, in the
/// order of the request. A booking that is refused or that fails changes nothing for the others.
/// Bookings of one show are decided in the order of the request. If the request itself is invalid,
/// nothing is done.
///
/// Each booking can have its own `idempotencyKey`; a request with the header `Idempotency-Key` is
/// rejected. The body may have up to 640 KiB. For the rate limit it counts as 50 requests.
#[utoipa::path(
    post,
    path = "/bookings/bulk",
    tag = "bookings",
    operation_id = "reserveSeatsInBulk",
    extensions(("x-problems" = json!([]))),
    security(("apiKey" = ["bookings:write"])),
    request_body = ReserveSeatsInBulk,
    responses((status = OK, description = "Each booking was decided: see `results`.", body = BulkResults)),
)]
pub(crate) async fn reserve_in_bulk(
    caller: Caller<WriteBookings>,
    State(state): State<Arc<AppState>>,
    _: NoIdempotencyKey,
    permit: LargeBodyPermit,
    body: Result<Json<ReserveSeatsInBulk, MAX_BULK_BODY_BYTES>, Problem>,
) -> Response {
    let Json(body) = match body {
        Ok(body) => body,
        // With as many errors as values, it is as long as the results.
        Err(problem) => return permit.respond(problem),
    };
    let requests = body.bookings.into_iter().map(|booking| {
        let (body, key) = booking.split();
        let request = body.request(key, caller.owner);
        (request.show_id.0, request)
    });
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let answers = state.reserve.submit_all(requests.collect(), deadline).await;
    let results = answers.into_iter().map(BulkResult::from).collect();
    permit.respond(JsonResponse(BulkResults { results }))
}
