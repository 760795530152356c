//! Handlers of `/bookings`.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use shared::{
    booking::{Booking, BookingStatus, MAX_SEATS_PER_BOOKING, Refusal, extend, query, reserve},
    id::{BookingId, ShowId},
    postgres,
};
use utoipa::{IntoParams, ToSchema};

use crate::{
    input::{
        caller::{Caller, Permission, ReadBookings, WriteBookings},
        conditions::{BookingIfNoneMatch, IfMatch, IfNoneMatch},
        idempotency_key::IdempotencyKey,
        integer,
        json::Json,
        name::Name,
        path::BookingPath,
        time::optional_time,
        url::{Id, Query},
    },
    output::{
        booking::{BookingView, ChangedBooking},
        pagination::{self, DEFAULT_LIMIT, ListPermit, MAX_LIMIT, Page},
        problem::Problem,
        replay::Replay,
        tagged::Tagged,
    },
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
    extensions(("x-problems" = json!(["idempotency-key-reused", "show-not-found", "too-many-seats", "user-limit-reached", "not-enough-seats"]))),
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
    let request = reserve::Request {
        claim: key.claim(caller.owner, "POST /bookings", &body),
        show_id: body.show_id,
        user_name: body.user_name.0,
        number_of_seats: body.number_of_seats,
    };
    let made = state.reserve.submit(request.show_id.0, request).await??;
    let location = [(LOCATION, format!("/bookings/{}", made.resource.id))];
    Ok((
        StatusCode::CREATED,
        location,
        Replay(made.is_replay),
        Tagged::<BookingView>::from(made.resource),
    ))
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

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfShow {
    /// Id of the booking's show, if known. A booking of another show is not found. If the database
    /// is spread over several servers, this id avoids a query to all of them.
    #[garde(skip)]
    #[param(inline, example = 7)]
    show_id: Option<ShowId>,
}

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

/// Find a booking
///
/// A hold that has expired is `FAILED` from its deadline on.
#[utoipa::path(
    get,
    path = "/bookings/{id}",
    tag = "bookings",
    operation_id = "findBooking",
    extensions(("x-problems" = json!(["booking-not-found"]))),
    security(("apiKey" = ["bookings:read"])),
    params(BookingPath, OfShow, BookingIfNoneMatch),
    responses((status = OK, description = "The booking.", body = BookingView, headers(("ETag" = String, description = "Version of the booking."))),
        (status = NOT_MODIFIED, description = "The client already has this version.", headers(("ETag" = String, description = "Version of the booking.")))),
)]
pub(crate) async fn find(
    _: Caller<ReadBookings>,
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id<BookingId>,
    Query(OfShow { show_id }): Query<OfShow>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let booking = postgres::read(|| query::find(&state.database.pool, booking_id, show_id))
        .await?
        .ok_or(Refusal::BookingNotFound { booking_id })?;
    Ok(Tagged::<BookingView>::from(booking).unless(|version| known.has(version)))
}

#[derive(Debug, Serialize, Deserialize, Validate, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListBookings {
    /// Only bookings of this show.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline, example = 7)]
    show_id: Option<ShowId>,
    /// Only bookings in this status.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    status: Option<BookingStatus>,
    /// Only bookings of this user, whose name is compared as written.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline, example = "Alice")]
    user_name: Option<Name>,
    /// Only bookings created after this time: RFC 3339, with `+` as `%2B`.
    #[garde(skip)]
    #[serde(
        default,
        deserialize_with = "optional_time",
        skip_serializing_if = "Option::is_none"
    )]
    #[param(example = "2026-11-23T20:00:00Z")]
    created_after: Option<DateTime<Utc>>,
    /// Only holds with a deadline before this time: RFC 3339, with `+` as `%2B`.
    #[garde(skip)]
    #[serde(
        default,
        deserialize_with = "optional_time",
        skip_serializing_if = "Option::is_none"
    )]
    #[param(example = "2026-11-23T20:02:00Z")]
    expires_before: Option<DateTime<Utc>>,
    /// Maximum number of bookings in a page; default 100.
    ///
    /// For the rate limit a page counts as one request, and one more for every 10 of these.
    #[garde(inner(range(min = 1, max = MAX_LIMIT)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(example = 100, minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// Pagination cursor, from the header `Link` of the previous page.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, example = "1042", pattern = "^[0-9]{1,18}(-[0-9]{1,18})?$")]
    after: Option<pagination::Cursor>,
}

/// List bookings
///
/// Bookings are ordered by id, the newest last. With `status=PENDING` or `expiresBefore`, the list
/// has only holds, ordered by deadline, the earliest first. Follow `Link` to the next page.
#[utoipa::path(
    get,
    path = "/bookings",
    tag = "bookings",
    operation_id = "listBookings",
    extensions(("x-problems" = json!(["invalid"]))),
    security(("apiKey" = ["bookings:read"])),
    params(ListBookings),
    responses((status = OK, description = "A page of bookings.", body = [BookingView], headers(("Link" = Option<String>, description = "Path of the next page, if there is one, as `<…>; rel=\"next\"`.")))),
)]
pub(crate) async fn list(
    _: Caller<ReadBookings>,
    State(state): State<Arc<AppState>>,
    permit: ListPermit,
    Query(mut query): Query<ListBookings>,
) -> Result<Page<BookingView>, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let filter = query::Filter {
        show_id: query.show_id,
        status: query.status,
        user_name: query.user_name.clone().map(|name| name.0),
        created_after: query.created_after,
        expires_before: query.expires_before,
    };
    let after = query.after.map(|cursor| cursor.0);
    if after.is_some_and(|cursor| !filter.has(cursor)) {
        return Err(pagination::wrong_cursor());
    }
    let bookings =
        postgres::read(|| query::list(&state.database.pool, &filter, after, limit + 1)).await?;
    let page = Page::new(bookings, limit, "/bookings", permit, |last| {
        query.after = Some(pagination::Cursor(filter.cursor(last)));
        query
    });
    Ok(page.into_views())
}
