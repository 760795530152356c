//! Handler that exports the bookings of a show.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderMap, HeaderValue,
        header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE, VARY},
    },
    response::{IntoResponse, Response},
};
use futures_util::{Stream, stream};
use shared::{
    booking::{
        Refusal,
        query::{self, Cursor, Filter},
    },
    id::ShowId,
    postgres::{self, Database},
    show, telemetry,
};

use crate::{
    input::{
        caller::{Caller, ReadBookings},
        path::ShowPath,
        url::Id,
    },
    output::{
        export::{Format, Part},
        large_body::LargeBodyPermit,
        problem::Problem,
    },
    state::AppState,
};

/// Number of bookings that are read at a time, and are in memory.
const PART: i64 = 1000;

/// Export the bookings of a show
///
/// Returns all bookings of the show, ordered by id, as CSV or, with `Accept: application/x-ndjson`,
/// as a line of JSON each. Bookings that are made or changed meanwhile may be in it or not. A cell of
/// the CSV that a spreadsheet would run as a formula begins with an apostrophe.
///
/// For the rate limit it counts as 101 requests.
#[utoipa::path(
    get,
    path = "/shows/{id}/export",
    tag = "shows",
    operation_id = "exportBookings",
    extensions(("x-problems" = json!(["show-not-found"]))),
    security(("apiKey" = ["bookings:read"])),
    params(ShowPath),
    responses((status = OK, description = "The bookings of the show.", content((String = "text/csv"), (String = "application/x-ndjson")))),
)]
pub(crate) async fn export(
    _: Caller<ReadBookings>,
    State(state): State<Arc<AppState>>,
    permit: LargeBodyPermit,
    Id(show_id): Id<ShowId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    postgres::read(|| show::find(&state.database.pool, show_id))
        .await?
        .ok_or(Refusal::ShowNotFound { show_id })?;
    let format = Format::accepted(headers.get(ACCEPT));
    let name = format!(
        "attachment; filename=\"bookings-of-show-{show_id}.{}\"",
        format.extension()
    );
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(format.media_type())),
        (
            CONTENT_DISPOSITION,
            name.parse().expect("an id is visible ASCII"),
        ),
        (VARY, HeaderValue::from_static("accept")),
    ];
    let body = Body::from_stream(parts(state.database.clone(), show_id, format));
    Ok(permit.stream((headers, body).into_response()))
}

/// Reads the bookings part by part, each when the client has read the one before.
///
/// Each part is a statement of its own, so that no transaction stays open for as long as the client
/// takes. An error aborts the response, which the client then knows to be incomplete.
fn parts(
    database: Database,
    show_id: ShowId,
    format: Format,
) -> impl Stream<Item = Result<Bytes, postgres::Error>> {
    let filter = Filter {
        show_id: Some(show_id),
        ..Filter::default()
    };
    let first = Some(None::<Cursor>);
    stream::try_unfold(first, move |after| {
        let (database, filter) = (database.clone(), filter.clone());
        async move {
            let Some(after) = after else {
                return Ok(None);
            };
            let read = postgres::read(|| query::list(&database, &filter, after, PART)).await;
            let bookings = read.inspect_err(|error| {
                tracing::warn!(error = telemetry::chain(error), "export aborted");
            })?;
            let is_last = i64::try_from(bookings.len()).is_ok_and(|length| length < PART);
            let next = bookings
                .last()
                .filter(|_| !is_last)
                .map(|last| Some(filter.cursor(last)));
            let mut part = Part::new(format);
            if after.is_none() {
                part.begin();
            }
            for booking in bookings {
                part.add(booking);
            }
            Ok(Some((part.into(), next)))
        }
    })
}
