//! `/shows`

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Datelike, NaiveDateTime, Timelike, Utc};
use garde::Validate;
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use shared::{
    booking::{MAX_SEATS_PER_BOOKING, Refusal},
    postgres::Session,
    show::{
        self, Creation, DEFAULT_HOLD_SECONDS, DEFAULT_MAX_HOLD_SECONDS, MAX_SEATS, NewShow, Show,
    },
};

use crate::{
    AppState,
    etag::{IfNoneMatch, Tagged},
    extract::{self, Id, IdempotencyKey, Query, no_control_character},
    page::{DEFAULT_LIMIT, Page},
    problem::Problem,
    replay::Replay,
};

#[derive(Debug, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateShow {
    #[garde(length(chars, min = 1, max = 200), custom(no_control_character))]
    name: String,
    #[garde(skip)]
    #[serde(deserialize_with = "start_time")]
    start_time: DateTime<Utc>,
    #[garde(range(min = 1, max = MAX_SEATS))]
    seats: i32,
    #[garde(range(min = 10, max = 86_400))]
    #[serde(default = "default_hold_seconds")]
    hold_seconds: i32,
    #[garde(inner(range(min = self.hold_seconds, max = 86_400)))]
    max_hold_seconds: Option<i32>,
    #[garde(inner(range(min = 1, max = MAX_SEATS_PER_BOOKING)))]
    max_seats_per_booking: Option<i32>,
    #[garde(inner(range(min = 1, max = MAX_SEATS)))]
    max_seats_per_user: Option<i32>,
}

fn default_hold_seconds() -> i32 {
    DEFAULT_HOLD_SECONDS
}

/// Takes `2025-12-10 10:00:00`, which is UTC, or RFC 3339.
fn start_time<'de, D: Deserializer<'de>>(decoder: D) -> Result<DateTime<Utc>, D::Error> {
    let text = String::deserialize(decoder)?;
    NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S")
        .map(|naive| naive.and_utc())
        .or_else(|_| DateTime::parse_from_rfc3339(&text).map(|time| time.to_utc()))
        .ok()
        // A leap second would be written as the next day, and so perhaps as the year 10000.
        .filter(|time| (1..=9999).contains(&time.year()) && time.nanosecond() < 1_000_000_000)
        .ok_or_else(|| {
            D::Error::custom(
                "not a time: write 2025-12-10 10:00:00 (UTC) or 2025-12-10T10:00:00+01:00",
            )
        })
}

/// `POST /shows`
pub(crate) async fn create(
    State(state): State<Arc<AppState>>,
    key: IdempotencyKey,
    extract::Json(body): extract::Json<CreateShow>,
) -> Result<impl IntoResponse, Problem> {
    let creation = Creation {
        claim: key.claim("POST /shows", &body),
        new: NewShow {
            hold_seconds: body.hold_seconds,
            max_hold_seconds: body
                .max_hold_seconds
                .unwrap_or_else(|| DEFAULT_MAX_HOLD_SECONDS.max(body.hold_seconds)),
            max_seats_per_booking: body.max_seats_per_booking.unwrap_or(MAX_SEATS_PER_BOOKING),
            max_seats_per_user: body.max_seats_per_user,
            ..NewShow::new(&body.name, body.start_time, body.seats)
        },
    };
    let made = show::create(&mut Session::new(&state.pool), creation).await??;
    let location = [(LOCATION, format!("/shows/{}", made.thing.id))];
    Ok((
        StatusCode::CREATED,
        location,
        Replay(made.is_replay),
        Tagged::from(made.thing),
    ))
}

/// `GET /shows/{id}`
pub(crate) async fn find(
    State(state): State<Arc<AppState>>,
    Id(show_id): Id,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let show = show::find(&state.pool, show_id)
        .await?
        .ok_or(Refusal::ShowNotFound { show_id })?;
    Ok(Tagged::from(show).unless(&known))
}

#[derive(Debug, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListShows {
    #[garde(inner(range(min = 1, max = 1000)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<i64>,
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<i64>,
}

/// `GET /shows`
pub(crate) async fn list(
    State(state): State<Arc<AppState>>,
    Query(query): Query<ListShows>,
) -> Result<Page<Show>, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let shows = show::list(&state.pool, query.after.unwrap_or(0), limit + 1).await?;
    Ok(Page::new(shows, limit, "/shows", |last| ListShows {
        after: Some(last.id),
        ..query
    }))
}
