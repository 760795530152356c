//! Handlers of `/shows`.

pub(crate) mod change;

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
    booking::{MAX_SEATS_PER_BOOKING, Refusal},
    id::ShowId,
    postgres::{self, Session},
    show::{
        self, Creation, DEFAULT_HOLD_SECONDS, DEFAULT_MAX_HOLD_SECONDS, MAX_SEATS, NewShow, Sale,
        ShowStatus,
    },
};
use utoipa::{IntoParams, ToSchema};

use crate::{
    input::{
        caller::{Caller, ReadShows, WriteShows},
        conditions::{IfNoneMatch, ShowIfNoneMatch},
        idempotency_key::IdempotencyKey,
        integer,
        json::Json,
        name::Name,
        optional::not_null,
        path::ShowPath,
        time::{start_time, time_or_null},
        url::{Id, Query},
    },
    output::{
        large_body::LargeBodyPermit,
        pagination::{DEFAULT_LIMIT, MAX_LIMIT, Page},
        problem::Problem,
        replay::Replay,
        show::ShowView,
        tagged::Tagged,
    },
    state::AppState,
};

/// Request to create a show.
#[derive(Debug, Serialize, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({ "name": "Morning Show", "startTime": "2026-12-10T10:00:00Z", "seats": 40 })))]
pub(crate) struct CreateShow {
    /// Name that people see. It may contain no character that is invisible or changes how others
    /// are displayed.
    #[garde(dive)]
    #[schema(inline)]
    name: Name,
    /// Start time: RFC 3339, or `2026-12-10 10:00:00` for UTC. It may be in the past.
    #[garde(skip)]
    #[serde(deserialize_with = "start_time")]
    #[schema(examples("2026-12-10T10:00:00Z", "2026-12-10 10:00:00"))]
    start_time: DateTime<Utc>,
    /// Total number of seats.
    #[garde(range(min = 1, max = MAX_SEATS))]
    #[schema(examples(40), minimum = 1, maximum = 1_000_000)]
    #[serde(deserialize_with = "integer::number")]
    seats: i32,
    /// Time for which a booking holds its seats unconfirmed, in seconds; default 120.
    #[garde(range(min = 10, max = 86_400))]
    #[serde(default = "default_hold_seconds", deserialize_with = "integer::number")]
    #[schema(examples(120), minimum = 10, maximum = 86_400)]
    hold_seconds: i32,
    /// Maximum total duration of a hold, including extensions, in seconds; at least `holdSeconds`.
    /// Default: 900, or `holdSeconds` if that is more.
    #[garde(inner(range(max = 86_400), custom(at_least(self.hold_seconds))))]
    #[schema(examples(900), minimum = 10, maximum = 86_400)]
    #[serde(default, deserialize_with = "integer::optional")]
    max_hold_seconds: Option<i32>,
    /// Maximum number of seats of one booking; default 1000.
    #[garde(inner(range(min = 1, max = MAX_SEATS_PER_BOOKING)))]
    #[schema(examples(10), minimum = 1, maximum = 1000)]
    #[serde(default, deserialize_with = "integer::optional")]
    max_seats_per_booking: Option<i32>,
    /// Maximum number of seats, held or confirmed, that one user name can have at the same time; no
    /// limit by default.
    #[garde(inner(range(min = 1, max = MAX_SEATS)))]
    #[schema(examples(20), minimum = 1, maximum = 1_000_000)]
    #[serde(default, deserialize_with = "integer::optional")]
    max_seats_per_user: Option<i32>,
    /// `DRAFT`: not on sale until it is resumed. On sale by default.
    #[garde(skip)]
    #[serde(
        default,
        deserialize_with = "not_null",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(inline, value_type = InitialStatus, required = false)]
    status: Option<InitialStatus>,
    /// Instant from which seats can be taken; always by default.
    #[garde(skip)]
    #[serde(
        default,
        deserialize_with = "nullable_time",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(examples("2026-12-01T10:00:00Z"))]
    sales_start: Option<DateTime<Utc>>,
    /// Instant from which seats can no longer be taken, after `salesStart`; never by default.
    #[garde(inner(custom(after(self.sales_start))))]
    #[serde(
        default,
        deserialize_with = "nullable_time",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(examples("2026-12-10T09:30:00Z"))]
    sales_end: Option<DateTime<Utc>>,
}

/// Status that a new show can have.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(examples("DRAFT"))]
pub(crate) enum InitialStatus {
    /// Not yet on sale.
    Draft,
    /// On sale within the sales window.
    OnSale,
}

fn nullable_time<'de, D: serde::Deserializer<'de>>(
    decoder: D,
) -> Result<Option<DateTime<Utc>>, D::Error> {
    time_or_null(decoder).map(Option::flatten)
}

fn after(start: Option<DateTime<Utc>>) -> impl FnOnce(&DateTime<Utc>, &()) -> garde::Result {
    move |end, ()| match start {
        Some(start) if *end <= start => Err(garde::Error::new("not after salesStart")),
        _ => Ok(()),
    }
}

fn at_least(hold_seconds: i32) -> impl FnOnce(&i32, &()) -> garde::Result {
    move |max_hold_seconds, ()| {
        if *max_hold_seconds < hold_seconds {
            return Err(garde::Error::new(format!(
                "lower than holdSeconds, which is {hold_seconds}"
            )));
        }
        Ok(())
    }
}

fn default_hold_seconds() -> i32 {
    DEFAULT_HOLD_SECONDS
}

/// Create a show
///
/// All its seats go on sale at once, unless it is a draft or has a sales window.
#[utoipa::path(
    post,
    path = "/shows",
    tag = "shows",
    operation_id = "createShow",
    extensions(("x-problems" = json!(["idempotency-key-reused"]))),
    security(("apiKey" = ["shows:write"])),
    params(IdempotencyKey),
    request_body = CreateShow,
    responses((status = CREATED, description = "The show is on sale. For a repeated request, this is the current state of the show.", body = ShowView, headers(
            ("Location" = String, description = "Path of the show."),
            ("ETag" = String, description = "Version of the show."),
            ("Idempotency-Replayed" = Option<String>, description = "`true` if an earlier request with the same key created the show."),
        ))),
)]
pub(crate) async fn create(
    caller: Caller<WriteShows>,
    State(state): State<Arc<AppState>>,
    key: IdempotencyKey,
    Json(body): Json<CreateShow>,
) -> Result<impl IntoResponse, Problem> {
    let creation = Creation {
        claim: key.claim(caller.owner, "POST /shows", &body),
        new: NewShow {
            hold_seconds: body.hold_seconds,
            max_hold_seconds: body
                .max_hold_seconds
                .unwrap_or_else(|| DEFAULT_MAX_HOLD_SECONDS.max(body.hold_seconds)),
            max_seats_per_booking: body.max_seats_per_booking.unwrap_or(MAX_SEATS_PER_BOOKING),
            max_seats_per_user: body.max_seats_per_user,
            sale: Sale {
                status: match body.status {
                    Some(InitialStatus::Draft) => ShowStatus::Draft,
                    Some(InitialStatus::OnSale) | None => ShowStatus::OnSale,
                },
                start: body.sales_start,
                end: body.sales_end,
            },
            ..NewShow::new(&body.name.0, body.start_time, body.seats)
        },
    };
    let made = show::create(&mut Session::new(&state.database), creation).await??;
    let location = [(LOCATION, format!("/shows/{}", made.resource.id))];
    Ok((
        StatusCode::CREATED,
        location,
        Replay(made.is_replay),
        Tagged::<ShowView>::from(made.resource),
    ))
}

/// Find a show
#[utoipa::path(
    get,
    path = "/shows/{id}",
    tag = "shows",
    operation_id = "findShow",
    extensions(("x-problems" = json!(["show-not-found"]))),
    security(("apiKey" = ["shows:read"])),
    params(ShowPath, ShowIfNoneMatch),
    responses((status = OK, description = "The show.", body = ShowView, headers(("ETag" = String, description = "Version of the show."))),
        (status = NOT_MODIFIED, description = "The client already has this version.", headers(("ETag" = String, description = "Version of the show.")))),
)]
pub(crate) async fn find(
    _: Caller<ReadShows>,
    State(state): State<Arc<AppState>>,
    Id(show_id): Id<ShowId>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let show = postgres::read(|| show::find(&state.database.pool, show_id))
        .await?
        .ok_or(Refusal::ShowNotFound { show_id })?;
    Ok(Tagged::<ShowView>::from(show).unless(|version| known.has(version)))
}

#[derive(Debug, Serialize, Deserialize, Validate, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListShows {
    /// Maximum number of shows in a page; default 100.
    ///
    /// For the rate limit a page counts as one request, and one more for every 10 of these.
    #[garde(inner(range(min = 1, max = MAX_LIMIT)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(example = 100, minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// Only shows with a higher id: the value from the header `Link` of the previous page.
    #[garde(inner(range(min = 0)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(example = 7, minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    after: Option<i64>,
}

/// List shows
///
/// Shows are ordered by id, the newest last. Follow `Link` to the next page.
#[utoipa::path(
    get,
    path = "/shows",
    tag = "shows",
    operation_id = "listShows",
    extensions(("x-problems" = json!(["invalid"]))),
    security(("apiKey" = ["shows:read"])),
    params(ListShows),
    responses((status = OK, description = "A page of shows.", body = [ShowView], headers(("Link" = Option<String>, description = "Path of the next page, if there is one, as `<…>; rel=\"next\"`.")))),
)]
pub(crate) async fn list(
    _: Caller<ReadShows>,
    State(state): State<Arc<AppState>>,
    permit: LargeBodyPermit,
    Query(query): Query<ListShows>,
) -> Result<Page<ShowView>, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let shows =
        postgres::read(|| show::list(&state.database, query.after.unwrap_or(0), limit + 1)).await?;
    let page = Page::new(shows, limit, "/shows", permit, |last| ListShows {
        after: Some(last.id.0),
        ..query
    });
    Ok(page.into_views())
}
