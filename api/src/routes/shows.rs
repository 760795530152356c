//! Handlers of `/shows`.

pub(crate) mod change;
pub(crate) mod export;

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
    metadata::Metadata,
    postgres::{self, Session},
    show::{
        self, Creation, DEFAULT_HOLD_SECONDS, DEFAULT_MAX_HOLD_SECONDS, MAX_SEATS, NewShow, Order,
        Sale, ShowStatus,
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
        metadata,
        name::{Name, Reference},
        optional::not_null,
        path::ShowPath,
        time::{optional_time, start_time, time_or_null},
        url::{Id, Query},
    },
    output::{
        large_body::LargeBodyPermit,
        pagination::{self, DEFAULT_LIMIT, MAX_LIMIT, Page},
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
    /// Maximum number of seats, held or confirmed, that one user can have at the same time; no limit by
    /// default. User names that differ in case, accents, spaces or punctuation, or in letters that
    /// look alike, are the same user.
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
    /// Your reference of the show. Several shows can have the same.
    #[garde(dive)]
    #[schema(inline, nullable = false)]
    #[serde(
        default,
        deserialize_with = "not_null",
        skip_serializing_if = "Option::is_none"
    )]
    reference: Option<Reference>,
    /// Your metadata of the show: an object of at most 2,048 bytes, and of at most 5 levels.
    #[garde(skip)]
    #[schema(inline, nullable = false)]
    #[serde(
        default,
        deserialize_with = "metadata::some",
        skip_serializing_if = "Option::is_none"
    )]
    metadata: Option<Metadata>,
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
            reference: body.reference.map(|reference| reference.0),
            metadata: body.metadata,
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
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListShows {
    /// Order of the list; `id` by default, `startTime` with `startsAfter` or `startsBefore`.
    #[garde(custom(suits(self.starts_after.or(self.starts_before))))]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    order: Option<ListOrder>,
    /// Only shows in this status.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    status: Option<ShowStatus>,
    /// Only shows of this name, compared as written.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline, example = "Morning Show")]
    name: Option<Name>,
    /// Only shows with this reference.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline, example = "hall-2/2026-12-10")]
    reference: Option<Reference>,
    /// Only shows that begin at this time or later: RFC 3339, with `+` as `%2B`.
    #[garde(skip)]
    #[serde(
        default,
        deserialize_with = "optional_time",
        skip_serializing_if = "Option::is_none"
    )]
    #[param(example = "2026-12-01T00:00:00Z")]
    starts_after: Option<DateTime<Utc>>,
    /// Only shows that begin before this time: RFC 3339, with `+` as `%2B`.
    #[garde(skip)]
    #[serde(
        default,
        deserialize_with = "optional_time",
        skip_serializing_if = "Option::is_none"
    )]
    #[param(example = "2027-01-01T00:00:00Z")]
    starts_before: Option<DateTime<Utc>>,
    /// Maximum number of shows in a page; default 100.
    ///
    /// For the rate limit a page counts as one request, and one more for every 10 of these.
    #[garde(inner(range(min = 1, max = MAX_LIMIT)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(example = 100, minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// Pagination cursor, from the header `Link` of the previous page.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, example = "7", pattern = "^(-?[0-9]{1,18}-)?[0-9]{1,18}$")]
    after: Option<pagination::ShowCursor>,
}

/// Order of a list of shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(examples("startTime"))]
pub(crate) enum ListOrder {
    /// By id, the newest last.
    Id,
    /// By start time, the soonest first.
    StartTime,
}

/// Validates that a list with bounds of the start time is in the order of that.
fn suits(bound: Option<DateTime<Utc>>) -> impl FnOnce(&Option<ListOrder>, &()) -> garde::Result {
    move |order, ()| match order {
        Some(ListOrder::Id) if bound.is_some() => Err(garde::Error::new(
            "startsAfter and startsBefore need the order startTime",
        )),
        _ => Ok(()),
    }
}

impl ListShows {
    fn filter(&self) -> show::Filter {
        let order = match self.order {
            Some(ListOrder::StartTime) => Order::StartTime,
            None if self.starts_after.or(self.starts_before).is_some() => Order::StartTime,
            Some(ListOrder::Id) | None => Order::Id,
        };
        show::Filter {
            order,
            status: self.status,
            name: self.name.clone().map(|name| name.0),
            reference: self.reference.clone().map(|reference| reference.0),
            starts_after: self.starts_after,
            starts_before: self.starts_before,
        }
    }
}

/// List shows
///
/// Shows are ordered by id, the newest last, or by start time, the soonest first. Follow `Link` to the
/// next page.
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
    Query(mut query): Query<ListShows>,
) -> Result<Page<ShowView>, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let filter = query.filter();
    let after = query.after.map(|cursor| cursor.0);
    if after.is_some_and(|cursor| !filter.has(cursor)) {
        return Err(pagination::wrong_cursor());
    }
    let shows = postgres::read(|| show::list(&state.database, &filter, after, limit + 1)).await?;
    let page = Page::new(shows, limit, "/shows", permit, |last| {
        query.after = Some(pagination::ShowCursor(filter.cursor(last)));
        query
    });
    Ok(page.into_views())
}
