//! Handler that lists bookings.

use std::sync::Arc;

use axum::extract::State;
use chrono::{DateTime, Utc};
use garde::Validate;
use serde::{Deserialize, Serialize};
use shared::{
    booking::{BookingStatus, query},
    id::ShowId,
    postgres,
};
use utoipa::IntoParams;

use crate::{
    input::{
        caller::{Caller, ReadBookings},
        name::{Name, Reference},
        time::optional_time,
        url::Query,
    },
    output::{
        booking::BookingView,
        large_body::LargeBodyPermit,
        pagination::{self, DEFAULT_LIMIT, MAX_LIMIT, Page},
        problem::Problem,
    },
    state::AppState,
};

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
    /// Only bookings with this reference.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline, example = "order-2026-4711")]
    reference: Option<Reference>,
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
    permit: LargeBodyPermit,
    Query(mut query): Query<ListBookings>,
) -> Result<Page<BookingView>, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let filter = query::Filter {
        show_id: query.show_id,
        status: query.status,
        user_name: query.user_name.clone().map(|name| name.0),
        reference: query.reference.clone().map(|reference| reference.0),
        created_after: query.created_after,
        expires_before: query.expires_before,
    };
    let after = query.after.map(|cursor| cursor.0);
    if after.is_some_and(|cursor| !filter.has(cursor)) {
        return Err(pagination::wrong_cursor());
    }
    let bookings =
        postgres::read(|| query::list(&state.database, &filter, after, limit + 1)).await?;
    let page = Page::new(bookings, limit, "/bookings", permit, |last| {
        query.after = Some(pagination::Cursor(filter.cursor(last)));
        query
    });
    Ok(page.into_views())
}
