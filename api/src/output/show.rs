//! A show, as clients see it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::{
    id::ShowId,
    metadata::Metadata,
    show::{Cancellation, Show, ShowStatus, cancellation::Preview},
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
    /// Maximum number of seats that one user can have at the same time, held or confirmed; null: no
    /// limit.
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
    /// Cancellation of the show. Only present if it was cancelled.
    #[schema(required = false, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    cancellation: Option<CancellationView>,
    /// Your reference of the show. Only present if it has one.
    #[schema(
        required = false,
        nullable = false,
        min_length = 1,
        max_length = 64,
        examples("hall-2/2026-12-10")
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    /// Your metadata of the show. Only present if it has some.
    #[schema(inline, required = false, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
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
            cancellation: show.cancellation.map(CancellationView::from),
            reference: show.reference,
            metadata: show.metadata,
            created_at: show.created_at,
        }
    }
}

impl From<Show> for Tagged<ShowView> {
    fn from(show: Show) -> Self {
        Self::new(show.version(), show.into())
    }
}

/// Cancellation of a show, and its progress.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Cancellation)]
pub(crate) struct CancellationView {
    /// Time at which the show was cancelled.
    #[schema(examples("2026-12-01T10:00:00.123456Z"))]
    #[serde(serialize_with = "json::time")]
    cancelled_at: DateTime<Utc>,
    /// Seats that were in use at that time.
    #[schema(minimum = 0, maximum = 1_000_000, examples(900))]
    seats: i32,
    /// Seats that are still in use: 0 once all bookings are cancelled.
    #[schema(minimum = 0, maximum = 1_000_000, examples(450))]
    remaining_seats: i32,
}

impl From<Cancellation> for CancellationView {
    fn from(cancellation: Cancellation) -> Self {
        Self {
            cancelled_at: cancellation.cancelled_at,
            seats: cancellation.seats,
            remaining_seats: cancellation.remaining_seats,
        }
    }
}

/// Preview of a cancellation: the bookings that it would cancel.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CancellationPreview)]
pub(crate) struct CancellationPreviewView {
    /// Number of holds that would be cancelled.
    #[schema(minimum = 0, examples(12))]
    pending_bookings: i64,
    /// Number of confirmed bookings that would be cancelled.
    #[schema(minimum = 0, examples(300))]
    confirmed_bookings: i64,
    /// Seats of these bookings.
    #[schema(minimum = 0, maximum = 1_000_000, examples(640))]
    seats: i64,
}

impl From<Preview> for CancellationPreviewView {
    fn from(preview: Preview) -> Self {
        Self {
            pending_bookings: preview.pending_bookings,
            confirmed_bookings: preview.confirmed_bookings,
            seats: preview.seats,
        }
    }
}
