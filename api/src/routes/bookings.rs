//! `/bookings`

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use shared::booking::{
    Booking, BookingStatus, Change, MAX_SEATS_PER_BOOKING, Refusal, extend, query, reserve,
};

use crate::{
    AppState,
    etag::{IfMatch, IfNoneMatch, Tagged},
    extract::{self, Id, IdempotencyKey, Query, no_control_character},
    page::{self, DEFAULT_LIMIT, Page},
    problem::Problem,
    replay::Replay,
};

#[derive(Debug, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ReserveSeats {
    #[garde(skip)]
    show_id: i64,
    #[garde(length(chars, min = 1, max = 200), custom(no_control_character))]
    user_name: String,
    #[garde(range(min = 1, max = MAX_SEATS_PER_BOOKING))]
    number_of_seats: i32,
}

/// `POST /bookings`
pub(crate) async fn reserve(
    State(state): State<Arc<AppState>>,
    key: IdempotencyKey,
    extract::Json(body): extract::Json<ReserveSeats>,
) -> Result<impl IntoResponse, Problem> {
    let request = reserve::Request {
        claim: key.claim("POST /bookings", &body),
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

/// `POST /bookings/{id}/confirm`
pub(crate) async fn confirm(
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id,
    IfMatch(only_if): IfMatch,
) -> Result<Tagged<Booking>, Problem> {
    let change = Change {
        booking_id,
        only_if,
    };
    Ok(state.confirm.submit(booking_id, change).await??.into())
}

/// `POST /bookings/{id}/cancel`
pub(crate) async fn cancel(
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id,
    IfMatch(only_if): IfMatch,
) -> Result<Tagged<Booking>, Problem> {
    let change = Change {
        booking_id,
        only_if,
    };
    Ok(state.cancel.submit(booking_id, change).await??.into())
}

#[derive(Debug, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExtendHold {
    #[garde(range(min = 1, max = 86_400))]
    seconds: i32,
}

/// `POST /bookings/{id}/extend`
pub(crate) async fn extend(
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id,
    IfMatch(only_if): IfMatch,
    extract::Json(ExtendHold { seconds }): extract::Json<ExtendHold>,
) -> Result<Tagged<Booking>, Problem> {
    let change = Change {
        booking_id,
        only_if,
    };
    let request = extend::Request { change, seconds };
    Ok(state.extend.submit(booking_id, request).await??.into())
}

/// `GET /bookings/{id}`
pub(crate) async fn find(
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let booking = query::find(&state.pool, booking_id)
        .await?
        .ok_or(Refusal::BookingNotFound { booking_id })?;
    Ok(Tagged::from(booking).unless(&known))
}

#[derive(Debug, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ListBookings {
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    show_id: Option<i64>,
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<BookingStatus>,
    #[garde(inner(length(chars, min = 1, max = 200), custom(no_control_character)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<String>,
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    created_after: Option<DateTime<Utc>>,
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_before: Option<DateTime<Utc>>,
    #[garde(inner(range(min = 1, max = 1000)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<i64>,
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<page::Cursor>,
}

/// `GET /bookings`
pub(crate) async fn list(
    State(state): State<Arc<AppState>>,
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
    let bookings = query::list(&state.pool, &filter, after, limit + 1).await?;
    Ok(Page::new(bookings, limit, "/bookings", |last| {
        query.after = Some(page::Cursor(filter.cursor(last)));
        query
    }))
}
