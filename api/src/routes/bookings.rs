//! Handlers of `/bookings`.

pub(crate) mod bulk;
pub(crate) mod change;
pub(crate) mod list;
pub(crate) mod reserve;

use std::sync::Arc;

use axum::{extract::State, response::Response};
use garde::Validate;
use serde::Deserialize;
use shared::{
    booking::{Refusal, query},
    id::{BookingId, ShowId},
    postgres,
};
use utoipa::IntoParams;

use crate::{
    input::{
        caller::{Caller, ReadBookings},
        conditions::{BookingIfNoneMatch, IfNoneMatch},
        path::BookingPath,
        url::{Id, Query},
    },
    output::{booking::BookingView, problem::Problem, tagged::Tagged},
    state::AppState,
};

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
