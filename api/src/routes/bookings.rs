//! `/bookings`

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header::LOCATION},
    response::IntoResponse,
};
use garde::Validate;
use serde::{Deserialize, Serialize};
use shared::booking::{Booking, BookingStatus, MAX_SEATS_PER_BOOKING, Refusal, query, reserve};

use crate::{
    AppState,
    extract::{self, Id, Query, no_control_character},
    page::{DEFAULT_LIMIT, Page},
    problem::Problem,
};

#[derive(Debug, Deserialize, Validate)]
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
    extract::Json(body): extract::Json<ReserveSeats>,
) -> Result<impl IntoResponse, Problem> {
    let request = reserve::Request {
        show_id: body.show_id,
        user_name: body.user_name,
        number_of_seats: body.number_of_seats,
    };
    let booking = state.reserve.submit(request.show_id, request).await??;
    let location = [(LOCATION, format!("/bookings/{}", booking.id))];
    Ok((StatusCode::CREATED, location, Json(booking)))
}

/// `POST /bookings/{id}/confirm`
pub(crate) async fn confirm(
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id,
) -> Result<Json<Booking>, Problem> {
    let booking = state.confirm.submit(booking_id, booking_id).await??;
    Ok(Json(booking))
}

/// `POST /bookings/{id}/cancel`
pub(crate) async fn cancel(
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id,
) -> Result<Json<Booking>, Problem> {
    let booking = state.cancel.submit(booking_id, booking_id).await??;
    Ok(Json(booking))
}

/// `GET /bookings/{id}`
pub(crate) async fn find(
    State(state): State<Arc<AppState>>,
    Id(booking_id): Id,
) -> Result<Json<Booking>, Problem> {
    let booking = query::find(&state.pool, booking_id).await?;
    Ok(Json(
        booking.ok_or(Refusal::BookingNotFound { booking_id })?,
    ))
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
    #[garde(inner(range(min = 1, max = 1000)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<i64>,
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<i64>,
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
    };
    let after = query.after.unwrap_or(0);
    let bookings = query::list(&state.pool, &filter, after, limit + 1).await?;
    Ok(Page::new(bookings, limit, "/bookings", |last| {
        query.after = Some(last.id);
        query
    }))
}
