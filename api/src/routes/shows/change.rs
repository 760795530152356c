//! Handlers that change a show: edit, pause, resume, archive.

use std::sync::Arc;

use axum::extract::State;
use chrono::{DateTime, Utc};
use garde::Validate;
use serde::Deserialize;
use shared::{
    booking::MAX_SEATS_PER_BOOKING,
    id::ShowId,
    postgres::Session,
    show::{
        MAX_SEATS,
        change::{self, Change, Edit},
    },
};
use utoipa::ToSchema;

use crate::{
    input::{
        caller::{Caller, WriteShows},
        conditions::{RequiredShowIfMatch, ShowIfMatch},
        integer,
        json::Json,
        name::Name,
        optional::not_null,
        path::ShowPath,
        time::{some_time, time_or_null},
        url::Id,
    },
    output::{problem::Problem, show::ShowView, tagged::Tagged},
    state::AppState,
};

/// Changes to a show. Fields that are left out stay as they are.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::option_option, reason = "left out, null, or a time")]
#[schema(examples(json!({ "seats": 60, "salesEnd": "2026-12-10T09:30:00Z" })))]
pub(crate) struct EditShow {
    /// Name that people see. It may contain no character that is invisible or changes how others
    /// are displayed.
    #[garde(dive)]
    #[schema(inline, nullable = false)]
    #[serde(default, deserialize_with = "not_null")]
    name: Option<Name>,
    /// Start time: RFC 3339, or `2026-12-10 10:00:00` for UTC.
    #[garde(skip)]
    #[serde(default, deserialize_with = "some_time")]
    #[schema(nullable = false, examples("2026-12-10T10:00:00Z"))]
    start_time: Option<DateTime<Utc>>,
    /// Total number of seats; no fewer than are in use.
    #[garde(inner(range(min = 1, max = MAX_SEATS)))]
    #[serde(default, deserialize_with = "integer::some")]
    #[schema(nullable = false, examples(60), minimum = 1, maximum = 1_000_000)]
    seats: Option<i32>,
    /// Time for which a new booking holds its seats unconfirmed, in seconds.
    #[garde(inner(range(min = 10, max = 86_400)))]
    #[serde(default, deserialize_with = "integer::some")]
    #[schema(nullable = false, examples(120), minimum = 10, maximum = 86_400)]
    hold_seconds: Option<i32>,
    /// Maximum total duration of a new hold, including extensions, in seconds; at least
    /// `holdSeconds`.
    #[garde(inner(range(min = 10, max = 86_400)))]
    #[serde(default, deserialize_with = "integer::some")]
    #[schema(nullable = false, examples(900), minimum = 10, maximum = 86_400)]
    max_hold_seconds: Option<i32>,
    /// Maximum number of seats of a new booking.
    #[garde(inner(range(min = 1, max = MAX_SEATS_PER_BOOKING)))]
    #[serde(default, deserialize_with = "integer::some")]
    #[schema(nullable = false, examples(10), minimum = 1, maximum = 1000)]
    max_seats_per_booking: Option<i32>,
    /// Instant from which seats can be taken; null: always.
    #[garde(skip)]
    #[serde(default, deserialize_with = "time_or_null")]
    #[schema(value_type = Option<DateTime<Utc>>, examples("2026-12-01T10:00:00Z"))]
    sales_start: Option<Option<DateTime<Utc>>>,
    /// Instant from which seats can no longer be taken, after `salesStart`; null: never.
    #[garde(skip)]
    #[serde(default, deserialize_with = "time_or_null")]
    #[schema(value_type = Option<DateTime<Utc>>, examples("2026-12-10T09:30:00Z"))]
    sales_end: Option<Option<DateTime<Utc>>>,
}

impl From<EditShow> for Change {
    fn from(edit: EditShow) -> Self {
        Self::Edit(Box::new(Edit {
            name: edit.name.map(|name| name.0),
            starts_at: edit.start_time,
            seats: edit.seats,
            hold_seconds: edit.hold_seconds,
            max_hold_seconds: edit.max_hold_seconds,
            max_seats_per_booking: edit.max_seats_per_booking,
            sales_start: edit.sales_start,
            sales_end: edit.sales_end,
        }))
    }
}

/// Change a show
///
/// Changes the given fields. Bookings that were made keep their seats and deadlines. A sale that is
/// under way goes on: seats that are added are available at once.
#[utoipa::path(
    patch,
    path = "/shows/{id}",
    tag = "shows",
    operation_id = "changeShow",
    extensions(("x-problems" = json!(["show-not-found", "seats-in-use", "show-changed", "if-match-required"]))),
    security(("apiKey" = ["shows:write"])),
    params(ShowPath, RequiredShowIfMatch),
    request_body = EditShow,
    responses((status = OK, description = "The show as it is now.", body = ShowView, headers(("ETag" = String, description = "Version of the show.")))),
)]
pub(crate) async fn edit(
    _: Caller<WriteShows>,
    State(state): State<Arc<AppState>>,
    Id(show_id): Id<ShowId>,
    RequiredShowIfMatch(only_if): RequiredShowIfMatch,
    Json(edit): Json<EditShow>,
) -> Result<Tagged<ShowView>, Problem> {
    change(&state, show_id, edit.into(), only_if).await
}

/// Pause a show
///
/// No seats can be taken until it is resumed. Holds can still be confirmed and extended, and
/// bookings cancelled. Safe to retry.
#[utoipa::path(
    post,
    path = "/shows/{id}/pause",
    tag = "shows",
    operation_id = "pauseShow",
    extensions(("x-problems" = json!(["show-not-found", "wrong-show-status", "show-changed"]))),
    security(("apiKey" = ["shows:write"])),
    params(ShowPath, ShowIfMatch),
    responses((status = OK, description = "The show is paused.", body = ShowView, headers(("ETag" = String, description = "Version of the show.")))),
)]
pub(crate) async fn pause(
    _: Caller<WriteShows>,
    State(state): State<Arc<AppState>>,
    Id(show_id): Id<ShowId>,
    ShowIfMatch(only_if): ShowIfMatch,
) -> Result<Tagged<ShowView>, Problem> {
    change(&state, show_id, Change::Pause, only_if).await
}

/// Put a show on sale
///
/// Of a draft or a paused show, seats can be taken from now on, within its sales window. Safe to
/// retry.
#[utoipa::path(
    post,
    path = "/shows/{id}/resume",
    tag = "shows",
    operation_id = "resumeShow",
    extensions(("x-problems" = json!(["show-not-found", "wrong-show-status", "show-changed"]))),
    security(("apiKey" = ["shows:write"])),
    params(ShowPath, ShowIfMatch),
    responses((status = OK, description = "The show is on sale.", body = ShowView, headers(("ETag" = String, description = "Version of the show.")))),
)]
pub(crate) async fn resume(
    _: Caller<WriteShows>,
    State(state): State<Arc<AppState>>,
    Id(show_id): Id<ShowId>,
    ShowIfMatch(only_if): ShowIfMatch,
) -> Result<Tagged<ShowView>, Problem> {
    change(&state, show_id, Change::Resume, only_if).await
}

/// Archive a show
///
/// No seats can be taken any more. Its bookings stay as they are. Safe to retry; there is no way
/// back.
#[utoipa::path(
    post,
    path = "/shows/{id}/archive",
    tag = "shows",
    operation_id = "archiveShow",
    extensions(("x-problems" = json!(["show-not-found", "show-changed"]))),
    security(("apiKey" = ["shows:write"])),
    params(ShowPath, ShowIfMatch),
    responses((status = OK, description = "The show is archived.", body = ShowView, headers(("ETag" = String, description = "Version of the show.")))),
)]
pub(crate) async fn archive(
    _: Caller<WriteShows>,
    State(state): State<Arc<AppState>>,
    Id(show_id): Id<ShowId>,
    ShowIfMatch(only_if): ShowIfMatch,
) -> Result<Tagged<ShowView>, Problem> {
    change(&state, show_id, Change::Archive, only_if).await
}

async fn change(
    state: &AppState,
    show_id: ShowId,
    change: Change,
    only_if: Option<Vec<String>>,
) -> Result<Tagged<ShowView>, Problem> {
    let request = change::Request {
        show_id,
        change,
        only_if,
    };
    let show = change::change(&mut Session::new(&state.database), request).await??;
    Ok(show.into())
}
