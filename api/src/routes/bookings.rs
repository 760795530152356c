//! `/bookings`

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use shared::{
    booking::{Booking, BookingStatus, MAX_SEATS_PER_BOOKING, Refusal, extend, query, reserve},
    postgres,
};
use utoipa::{IntoParams, ToSchema};

use crate::{
    AppState,
    access::{Caller, Permission, ReadBookings, WriteBookings},
    etag::{IfMatch, IfNoneMatch, Tagged},
    extract::{self, Id, IdempotencyKey, ListPermit, Query, plain_to_see},
    page::{self, DEFAULT_LIMIT, Page},
    problem::Problem,
    replay::Replay,
    routes::shows::time,
    whole,
};

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ReserveSeats {
    /// Of which show.
    #[garde(skip)]
    #[schema(examples(7), minimum = -9_223_372_036_854_775_808_i64, maximum = 9_223_372_036_854_775_807_i64)]
    #[serde(deserialize_with = "whole::number")]
    show_id: i64,
    /// Who books: compared as it is written. No character that is not seen or changes how others are shown.
    #[garde(length(chars, min = 1, max = 200), custom(plain_to_see))]
    #[schema(
        examples("Alice"),
        min_length = 1,
        max_length = 200,
        pattern = "^([^\\x00-\\x1f\\x7f-\\x9f\\u00ad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb]|[^\\x00-\\x7f\\x80-\\x9f\\u00ad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb][\\u200c\\u200d])*$"
    )]
    user_name: String,
    /// How many seats. A show may allow fewer (`maxSeatsPerBooking`).
    #[garde(range(min = 1, max = MAX_SEATS_PER_BOOKING))]
    #[schema(examples(2), minimum = 1, maximum = 1000)]
    #[serde(deserialize_with = "whole::number")]
    number_of_seats: i32,
}

/// Reserve seats
///
/// The seats are held for the show's `holdSeconds`; confirm or extend the booking in that time, or they go back on sale and
/// the booking is `FAILED`. A booking gets all its seats or none.
#[utoipa::path(
    post,
    path = "/bookings",
    tag = "bookings",
    operation_id = "reserveSeats",
    security(("apiKey" = ["bookings:write"])),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "A text of your choice that makes the request repeatable: sent again with an equal body within 24 hours, it makes nothing new and is answered with what it made the first time, as that is now. A request that is refused uses no key up. Keys belong to their caller, for shows and bookings together. Use a new one, such as a UUID, for each thing that you want.", min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "0b8ae02f-5e0c-4b9a-9d37-3a1f6f0d2c11"),
    ),
    request_body = ReserveSeats,
    responses((status = CREATED, description = "The seats are held; when it is a repeat, this is the booking as it is now: look at its `status`.", body = Booking, headers(
            ("Location" = String, description = "Its path."),
            ("ETag" = String, description = "Stands for this state of it."),
            ("Idempotency-Replayed" = Option<String>, description = "`true` when an earlier request with the same key made it."),
        ))),
)]
pub(crate) async fn reserve(
    caller: Caller<WriteBookings>,
    State(state): State<Arc<AppState>>,
    key: IdempotencyKey,
    extract::Json(body): extract::Json<ReserveSeats>,
) -> Result<impl IntoResponse, Problem> {
    let request = reserve::Request {
        claim: key.claim(caller.owner, "POST /bookings", &body),
        show_id: body.show_id,
        user_name: body.user_name,
        number_of_seats: body.number_of_seats,
    };
    let made = state.reserve.submit(request.show_id, request).await??;
    let location = [(LOCATION, format!("/bookings/{}", made.thing.id))];
    Ok((
        StatusCode::CREATED,
        location,
        Replay(made.is_replay),
        Tagged::from(made.thing),
    ))
}

/// A booking after a change.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChangedBooking {
    /// Identity. Later bookings have higher ids.
    #[schema(minimum = 1, examples(1042))]
    id: i64,
    /// Whose seats.
    #[schema(minimum = 1, examples(7))]
    show_id: i64,
    /// Who booked; null if the API key lacks the scope `bookings:read`.
    #[schema(required, min_length = 1, max_length = 200, examples("Alice"))]
    user_name: Option<String>,
    /// How many seats.
    #[schema(minimum = 1, maximum = 1000, examples(2))]
    number_of_seats: i32,
    /// Where it stands.
    status: BookingStatus,
    /// The hold's deadline: from this instant on it can no longer be confirmed.
    #[schema(examples("2026-11-23T20:02:00.123456Z"))]
    expires_at: DateTime<Utc>,
    /// The latest deadline that the hold can be given by extending it.
    #[schema(examples("2026-11-23T20:15:00.123456Z"))]
    extendable_until: DateTime<Utc>,
    /// What was left of the hold when this was read, in whole seconds; null when it is not held. No part of the
    /// booking's `ETag`.
    #[schema(required, minimum = 0, maximum = 86_400, examples(119))]
    seconds_left: Option<i64>,
    /// When the seats were taken.
    #[schema(examples("2026-11-23T20:00:00.123456Z"))]
    created_at: DateTime<Utc>,
    /// When the status last changed; null while it is held.
    #[schema(required, examples("2026-11-23T20:01:10.5Z"))]
    resolved_at: Option<DateTime<Utc>>,
}

/// The answer to a change. A key that may only write is not shown the buyer: repeating a change would otherwise read any booking.
fn answer(
    caller: &Caller<WriteBookings>,
    changed: Result<Booking, Refusal>,
) -> Result<Tagged<ChangedBooking>, Problem> {
    let booking = changed?;
    let version = booking.version();
    let may_read = caller.may_also(ReadBookings::SCOPE);
    let changed = ChangedBooking {
        id: booking.id,
        show_id: booking.show_id,
        user_name: may_read.then_some(booking.user_name),
        number_of_seats: booking.number_of_seats,
        status: booking.status,
        expires_at: booking.expires_at,
        extendable_until: booking.extendable_until,
        seconds_left: booking.seconds_left,
        created_at: booking.created_at,
        resolved_at: booking.resolved_at,
    };
    Ok(Tagged::new(version, changed))
}

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfShow {
    /// The booking's show, if you know it: of another show there is no such booking. Where the database is spread over several
    /// servers, the booking is found at once with it, and without it all of them are asked.
    #[garde(skip)]
    #[param(example = 7, minimum = -9_223_372_036_854_775_808_i64, maximum = 9_223_372_036_854_775_807_i64)]
    show_id: Option<i64>,
}

/// Confirm a booking
///
/// Sells the held seats. Repeating it does no harm.
#[utoipa::path(
    post,
    path = "/bookings/{id}/confirm",
    tag = "bookings",
    operation_id = "confirmBooking",
    security(("apiKey" = ["bookings:write"])),
    params(
        ("id" = i64, Path, description = "Which one.", minimum = 1, maximum = 9_223_372_036_854_775_807_i64, example = 1042),
        OfShow,
        ("If-Match" = Option<String>, Header, description = "Only while the booking's `ETag` is one of these; `*`: whatever it is. What is already done is answered with 200 all the same, so that a repeat does no harm; and what the booking's status does not allow, with 409.", pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)?$"#, example = "\"PENDING-1795118520123456\""),
    ),
    responses((status = OK, description = "It is confirmed.", body = ChangedBooking, headers(("ETag" = String, description = "Stands for this state of it.")))),
)]
pub(crate) async fn confirm(
    caller: Caller<WriteBookings>,
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id,
    Query(OfShow { show_id }): Query<OfShow>,
    IfMatch(only_if): IfMatch,
) -> Result<Tagged<ChangedBooking>, Problem> {
    let change = state.change(booking_id, show_id, only_if).await?;
    answer(&caller, state.confirm.submit(change.key(), change).await?)
}

/// Cancel a booking
///
/// Gives the seats back, held or sold. Repeating it does no harm.
#[utoipa::path(
    post,
    path = "/bookings/{id}/cancel",
    tag = "bookings",
    operation_id = "cancelBooking",
    security(("apiKey" = ["bookings:write"])),
    params(
        ("id" = i64, Path, description = "Which one.", minimum = 1, maximum = 9_223_372_036_854_775_807_i64, example = 1042),
        OfShow,
        ("If-Match" = Option<String>, Header, description = "Only while the booking's `ETag` is one of these; `*`: whatever it is. What is already done is answered with 200 all the same, so that a repeat does no harm; and what the booking's status does not allow, with 409.", pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)?$"#, example = "\"PENDING-1795118520123456\""),
    ),
    responses((status = OK, description = "It is cancelled.", body = ChangedBooking, headers(("ETag" = String, description = "Stands for this state of it.")))),
)]
pub(crate) async fn cancel(
    caller: Caller<WriteBookings>,
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id,
    Query(OfShow { show_id }): Query<OfShow>,
    IfMatch(only_if): IfMatch,
) -> Result<Tagged<ChangedBooking>, Problem> {
    let change = state.change(booking_id, show_id, only_if).await?;
    answer(&caller, state.cancel.submit(change.key(), change).await?)
}

/// How long a hold is to last.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExtendHold {
    /// From now on, at least.
    #[garde(range(min = 1, max = 86_400))]
    #[schema(examples(300), minimum = 1, maximum = 86_400)]
    #[serde(deserialize_with = "whole::number")]
    seconds: i32,
}

/// Extend a hold
///
/// Makes the hold last for at least so many seconds from now on; it never ends sooner than before, so repeating it does no
/// harm. A show says how long a hold can last in all (`maxHoldSeconds`).
#[utoipa::path(
    post,
    path = "/bookings/{id}/extend",
    tag = "bookings",
    operation_id = "extendHold",
    security(("apiKey" = ["bookings:write"])),
    params(
        ("id" = i64, Path, description = "Which one.", minimum = 1, maximum = 9_223_372_036_854_775_807_i64, example = 1042),
        OfShow,
        ("If-Match" = Option<String>, Header, description = "Only while the booking's `ETag` is one of these; `*`: whatever it is. What is already done is answered with 200 all the same, so that a repeat does no harm; and what the booking's status does not allow, with 409.", pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)?$"#, example = "\"PENDING-1795118520123456\""),
    ),
    request_body = ExtendHold,
    responses((status = OK, description = "It is held for that long.", body = ChangedBooking, headers(("ETag" = String, description = "Stands for this state of it.")))),
)]
pub(crate) async fn extend(
    caller: Caller<WriteBookings>,
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id,
    Query(OfShow { show_id }): Query<OfShow>,
    IfMatch(only_if): IfMatch,
    extract::Json(ExtendHold { seconds }): extract::Json<ExtendHold>,
) -> Result<Tagged<ChangedBooking>, Problem> {
    let change = state.change(booking_id, show_id, only_if).await?;
    let key = change.key();
    let request = extend::Request { change, seconds };
    answer(&caller, state.extend.submit(key, request).await?)
}

/// Find a booking
///
/// A hold that has run out is `FAILED` from its deadline on.
#[utoipa::path(
    get,
    path = "/bookings/{id}",
    tag = "bookings",
    operation_id = "findBooking",
    security(("apiKey" = ["bookings:read"])),
    params(
        ("id" = i64, Path, description = "Which one.", minimum = 1, maximum = 9_223_372_036_854_775_807_i64, example = 1042),
        OfShow,
        ("If-None-Match" = Option<String>, Header, description = "Answer 304 while the `ETag` is one of these; `*`: whatever it is.", pattern = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)?$"#, example = "\"PENDING-1795118520123456\""),
    ),
    responses((status = OK, description = "The booking.", body = Booking, headers(("ETag" = String, description = "Stands for this state of it."))),
        (status = NOT_MODIFIED, description = "You have it already.", headers(("ETag" = String, description = "Stands for this state of it.")))),
)]
pub(crate) async fn find(
    _: Caller<ReadBookings>,
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id,
    Query(OfShow { show_id }): Query<OfShow>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let booking = postgres::read(|| query::find(&state.database.pool, booking_id, show_id))
        .await?
        .ok_or(Refusal::BookingNotFound { booking_id })?;
    Ok(Tagged::from(booking).unless(&known))
}

fn optional_time<'de, D: Deserializer<'de>>(decoder: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let text = String::deserialize(decoder)?;
    let time = time(&text).ok_or_else(|| {
        D::Error::custom("not a time: write 2026-12-10T10:00:00Z or 2026-12-10T10:00:00%2B01:00")
    });
    time.map(Some)
}

#[derive(Debug, Serialize, Deserialize, Validate, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListBookings {
    /// Of this show.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(example = 7, minimum = -9_223_372_036_854_775_808_i64, maximum = 9_223_372_036_854_775_807_i64)]
    show_id: Option<i64>,
    /// In this status.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    status: Option<BookingStatus>,
    /// Of this user, written in the same way.
    #[garde(inner(length(chars, min = 1, max = 200), custom(plain_to_see)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(
        example = "Alice",
        min_length = 1,
        max_length = 200,
        pattern = "^([^\\x00-\\x1f\\x7f-\\x9f\\u00ad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb]|[^\\x00-\\x7f\\x80-\\x9f\\u00ad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb][\\u200c\\u200d])*$"
    )]
    user_name: Option<String>,
    /// Created later than this: RFC 3339, `+` as `%2B`.
    #[garde(skip)]
    #[serde(
        default,
        deserialize_with = "optional_time",
        skip_serializing_if = "Option::is_none"
    )]
    #[param(example = "2026-11-23T20:00:00Z")]
    created_after: Option<DateTime<Utc>>,
    /// Holds whose deadline comes before this: RFC 3339, `+` as `%2B`.
    #[garde(skip)]
    #[serde(
        default,
        deserialize_with = "optional_time",
        skip_serializing_if = "Option::is_none"
    )]
    #[param(example = "2026-11-23T20:02:00Z")]
    expires_before: Option<DateTime<Utc>>,
    /// How many at most; 100 when you do not say.
    #[garde(inner(range(min = 1, max = 1000)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(example = 100, minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// A place in the list: take it from `Link`.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, example = "1042", pattern = "^[0-9]{1,18}(-[0-9]{1,18})?$")]
    after: Option<page::Cursor>,
}

/// List bookings
///
/// By id, the newest last. With `status=PENDING` or `expiresBefore` it is a list of holds, by deadline, the next one first.
/// Follow `Link` for the rest.
#[utoipa::path(
    get,
    path = "/bookings",
    tag = "bookings",
    operation_id = "listBookings",
    security(("apiKey" = ["bookings:read"])),
    params(
        ListBookings,
    ),
    responses((status = OK, description = "A page of bookings.", body = [Booking], headers(("Link" = Option<String>, description = "While there is more: the path of the next page, as `<…>; rel=\"next\"`.")))),
)]
pub(crate) async fn list(
    _: Caller<ReadBookings>,
    State(state): State<Arc<AppState>>,
    place: ListPermit,
    Query(mut query): Query<ListBookings>,
) -> Result<Page<Booking>, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let filter = query::Filter {
        show_id: query.show_id,
        status: query.status,
        user_name: query.user_name.clone(),
        created_after: query.created_after,
        expires_before: query.expires_before,
    };
    let after = query.after.map(|cursor| cursor.0);
    if after.is_some_and(|cursor| !filter.has(cursor)) {
        return Err(page::of_another_list());
    }
    let bookings =
        postgres::read(|| query::list(&state.database.pool, &filter, after, limit + 1)).await?;
    Ok(Page::new(bookings, limit, "/bookings", place, |last| {
        query.after = Some(page::Cursor(filter.cursor(last)));
        query
    }))
}
