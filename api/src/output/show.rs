//! A show, as clients see it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::{
    id::ShowId,
    show::{Show, ShowStatus},
};
use utoipa::ToSchema;

use super::{json, tagged::Tagged};

/// Performance with a number of unnumbered seats.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Show)]
pub(crate) struct ShowView {
    /// Unique id. Later shows have higher ids.
    #[schema(value_type = i64, minimum = 1, examples(7))]
    id: ShowId,
    /// Display name.
    #[schema(min_length = 1, max_length = 200, examples("Morning Show"))]
    name: String,
    /// Time at which the show begins.
    #[schema(examples("2026-12-10T10:00:00Z"))]
    #[serde(serialize_with = "json::time")]
    start_time: DateTime<Utc>,
    /// Total number of seats.
    #[schema(minimum = 1, maximum = 1_000_000, examples(40))]
    seats: i32,
    /// Seats that no pending or confirmed booking has. While very many holds of the show have
    /// expired at the same time, this can be too low for a moment.
    #[schema(minimum = 0, maximum = 1_000_000, examples(38))]
    available_seats: i32,
    /// Time for which a new booking holds its seats until it is confirmed, in seconds.
    #[schema(minimum = 1, maximum = 86_400, examples(120))]
    hold_seconds: i32,
    /// Maximum total duration of a hold, extensions included, in seconds.
    #[schema(minimum = 1, maximum = 86_400, examples(900))]
    max_hold_seconds: i32,
    /// Maximum number of seats of one booking.
    #[schema(minimum = 1, maximum = 1000, examples(10))]
    max_seats_per_booking: i32,
    /// Maximum number of seats that one user name can have at the same time, held or confirmed;
    /// null: no limit.
    #[schema(required, minimum = 1, maximum = 1_000_000, examples(20))]
    max_seats_per_user: Option<i32>,
    /// Status of the show. Seats can be taken while it is `ON_SALE`, within the sales window.
    status: ShowStatus,
    /// Instant from which seats can be taken; null: always.
    #[schema(required, examples("2026-12-01T10:00:00Z"))]
    #[serde(serialize_with = "json::optional_time")]
    sales_start: Option<DateTime<Utc>>,
    /// Instant from which seats can no longer be taken; null: never.
    #[schema(required, examples("2026-12-10T09:30:00Z"))]
    #[serde(serialize_with = "json::optional_time")]
    sales_end: Option<DateTime<Utc>>,
    /// Time of creation.
    #[schema(examples("2026-11-23T20:00:00.123456Z"))]
    #[serde(serialize_with = "json::time")]
    created_at: DateTime<Utc>,
}

impl From<Show> for ShowView {
    fn from(show: Show) -> Self {
        Self {
            id: show.id,
            name: show.name,
            start_time: show.starts_at,
            seats: show.seats,
            available_seats: show.available_seats,
            hold_seconds: show.hold_seconds,
            max_hold_seconds: show.max_hold_seconds,
            max_seats_per_booking: show.max_seats_per_booking,
            max_seats_per_user: show.max_seats_per_user,
            status: show.sale.status,
            sales_start: show.sale.start,
            sales_end: show.sale.end,
            created_at: show.created_at,
        }
    }
}

impl From<Show> for Tagged<ShowView> {
    fn from(show: Show) -> Self {
        Self::new(show.version(), show.into())
    }
}
