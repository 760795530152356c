//! Handlers that change a show: edit, pause, resume, archive, cancel.

use std::sync::Arc;

use axum::{
    Json as JsonResponse,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use garde::Validate;
use serde::Deserialize;
use shared::{
    booking::{MAX_SEATS_PER_BOOKING, Refusal},
    id::ShowId,
    metadata::Metadata,
    postgres::{self, Session},
    show::{
        MAX_SEATS, cancellation,
        change::{self, Change, Edit},
    },
};
use utoipa::{IntoParams, ToSchema};

use crate::{
    input::{
        caller::{Caller, WriteShows},
        conditions::{RequiredShowIfMatch, ShowIfMatch},
        integer,
        json::Json,
        metadata,
        name::{Name, Reference},
        optional::{not_null, nullable},
        path::ShowPath,
        time::{some_time, time_or_null},
        url::{Id, Query},
    },
    output::{
        problem::Problem,
        show::{CancellationPreviewView, ShowView},
        tagged::Tagged,
    },
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
    /// Maximum number of seats, held or confirmed, that one user can have after a new booking; null: no
    /// limit. Bookings that were made while the show had no limit do not count.
    #[garde(inner(inner(range(min = 1, max = MAX_SEATS))))]
    #[serde(default, deserialize_with = "integer::nullable")]
    #[schema(value_type = Option<i32>, examples(20), minimum = 1, maximum = 1_000_000)]
    max_seats_per_user: Option<Option<i32>>,
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
    /// Your reference of the show; null: none.
    #[garde(dive)]
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, examples("hall-2/2026-12-10"), min_length = 1, max_length = 64)]
    reference: Option<Option<Reference>>,
    /// Your metadata of the show, in place of what it has: an object of at most 2,048 bytes, and of at
    /// most 5 levels; null: none.
    #[garde(skip)]
    #[serde(default, deserialize_with = "metadata::or_null")]
    #[schema(inline, value_type = Option<Metadata>)]
    metadata: Option<Option<Metadata>>,
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
            max_seats_per_user: edit.max_seats_per_user,
            reference: edit.reference.map(|new| new.map(|reference| reference.0)),
            metadata: edit.metadata,
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
    extensions(("x-problems" = json!(["show-not-found", "wrong-show-status", "show-changed"]))),
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

#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CancelShow {
    /// Changes nothing, and returns what would be cancelled.
    #[garde(skip)]
    #[serde(default)]
    #[param(required = false, example = true)]
    dry_run: bool,
}

/// Cancel a show
///
/// The performance does not take place: no seats can be taken any more, and a worker cancels all
/// bookings, held and confirmed. `cancellation` of the show has the progress. Until its turn comes, a
/// hold can still be confirmed. Safe to retry; there is no way back.
#[utoipa::path(
    post,
    path = "/shows/{id}/cancel",
    tag = "shows",
    operation_id = "cancelShow",
    extensions(("x-problems" = json!(["show-not-found", "show-changed"]))),
    security(("apiKey" = ["shows:write"])),
    params(ShowPath, CancelShow, ShowIfMatch),
    responses((status = ACCEPTED, description = "The show is cancelled, and its bookings are being cancelled.", body = ShowView, headers(("ETag" = String, description = "Version of the show."))),
        (status = OK, description = "With `dryRun`: what would be cancelled.", body = CancellationPreviewView)),
)]
pub(crate) async fn cancel(
    _: Caller<WriteShows>,
    State(state): State<Arc<AppState>>,
    Id(show_id): Id<ShowId>,
    Query(CancelShow { dry_run }): Query<CancelShow>,
    ShowIfMatch(only_if): ShowIfMatch,
) -> Result<Response, Problem> {
    if dry_run {
        let preview = postgres::read(|| cancellation::preview(&state.database.pool, show_id))
            .await?
            .ok_or(Refusal::ShowNotFound { show_id })?;
        return Ok(JsonResponse(CancellationPreviewView::from(preview)).into_response());
    }
    let show = change(&state, show_id, Change::Cancel, only_if).await?;
    Ok((StatusCode::ACCEPTED, show).into_response())
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
