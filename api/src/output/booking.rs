//! A booking, as clients see it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use shared::{
    booking::{Booking, BookingStatus},
    id::{BookingId, ShowId},
    metadata::Metadata,
};
use utoipa::ToSchema;

use super::{json, tagged::Tagged};

/// Booking of some seats of one show for one user.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Booking)]
pub(crate) struct BookingView {
    /// Unique id. Later bookings have higher ids.
    #[schema(value_type = i64, minimum = 1, examples(1042))]
    id: BookingId,
    /// Id of the show.
    #[schema(value_type = i64, minimum = 1, examples(7))]
    show_id: ShowId,
    /// Name of the user who booked.
    #[schema(min_length = 1, max_length = 200, examples("Alice"))]
    user_name: String,
    /// Number of seats.
    #[schema(minimum = 1, maximum = 1000, examples(2))]
    number_of_seats: i32,
    /// Status of the booking.
    status: BookingStatus,
    /// Deadline of the hold: from this instant on, it can no longer be confirmed.
    #[schema(examples("2026-11-23T20:02:00.123456Z"))]
    #[serde(serialize_with = "json::time")]
    expires_at: DateTime<Utc>,
    /// Latest deadline that the hold can be extended to.
    #[schema(examples("2026-11-23T20:15:00.123456Z"))]
    #[serde(serialize_with = "json::time")]
    extendable_until: DateTime<Utc>,
    /// Whole seconds left of the hold when it was read; null when it is not held. Not part of the
    /// booking's `ETag`.
    #[schema(required, minimum = 0, maximum = 86_400, examples(119))]
    seconds_left: Option<i64>,
    /// Time at which the seats were taken.
    #[schema(examples("2026-11-23T20:00:00.123456Z"))]
    #[serde(serialize_with = "json::time")]
    created_at: DateTime<Utc>,
    /// Time of the last status change; null while the booking is held.
    #[schema(required, examples("2026-11-23T20:01:10.5Z"))]
    #[serde(serialize_with = "json::optional_time")]
    resolved_at: Option<DateTime<Utc>>,
    /// Seats that it had besides, and that were cancelled, not confirmed, or passed on to another
    /// booking. Only present if there are any.
    #[schema(
        required = false,
        nullable = false,
        minimum = 1,
        maximum = 1000,
        examples(1)
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    released_seats: Option<i32>,
    /// Id of the booking that passed these seats on. Only present if there is one.
    #[schema(required = false, nullable = false, value_type = Option<i64>, minimum = 1, examples(1041))]
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<BookingId>,
    /// Your reference of the booking. Only present if it has one.
    #[schema(
        required = false,
        nullable = false,
        min_length = 1,
        max_length = 64,
        examples("order-2026-4711")
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    /// Your metadata of the booking. Only present if it has some.
    #[schema(inline, required = false, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
}

impl From<Booking> for BookingView {
    fn from(booking: Booking) -> Self {
        Self {
            seconds_left: booking.seconds_left(),
            id: booking.id,
            show_id: booking.show_id,
            user_name: booking.user_name,
            number_of_seats: booking.number_of_seats,
            status: booking.status,
            expires_at: booking.expires_at,
            extendable_until: booking.extendable_until,
            created_at: booking.created_at,
            resolved_at: booking.resolved_at,
            released_seats: booking.released_seats,
            from: booking.from,
            reference: booking.reference,
            metadata: booking.metadata,
        }
    }
}

impl From<Booking> for Tagged<BookingView> {
    fn from(booking: Booking) -> Self {
        Self::new(booking.version(), booking.into())
    }
}

/// A booking after a change.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChangedBooking {
    /// Unique id. Later bookings have higher ids.
    #[schema(value_type = i64, minimum = 1, examples(1042))]
    id: BookingId,
    /// Id of the show.
    #[schema(value_type = i64, minimum = 1, examples(7))]
    show_id: ShowId,
    /// Name of the user who booked; null if the API key lacks the scope `bookings:read`.
    #[schema(required, min_length = 1, max_length = 200, examples("Alice"))]
    user_name: Option<String>,
    /// Number of seats.
    #[schema(minimum = 1, maximum = 1000, examples(2))]
    number_of_seats: i32,
    /// Status of the booking.
    status: BookingStatus,
    /// Deadline of the hold: from this instant on, it can no longer be confirmed.
    #[schema(examples("2026-11-23T20:02:00.123456Z"))]
    #[serde(serialize_with = "json::time")]
    expires_at: DateTime<Utc>,
    /// Latest deadline that the hold can be extended to.
    #[schema(examples("2026-11-23T20:15:00.123456Z"))]
    #[serde(serialize_with = "json::time")]
    extendable_until: DateTime<Utc>,
    /// Whole seconds left of the hold when it was read; null when it is not held. Not part of the
    /// booking's `ETag`.
    #[schema(required, minimum = 0, maximum = 86_400, examples(119))]
    seconds_left: Option<i64>,
    /// Time at which the seats were taken.
    #[schema(examples("2026-11-23T20:00:00.123456Z"))]
    #[serde(serialize_with = "json::time")]
    created_at: DateTime<Utc>,
    /// Time of the last status change; null while the booking is held.
    #[schema(required, examples("2026-11-23T20:01:10.5Z"))]
    #[serde(serialize_with = "json::optional_time")]
    resolved_at: Option<DateTime<Utc>>,
    /// Seats that it had besides, and that were cancelled, not confirmed, or passed on to another
    /// booking. Only present if there are any.
    #[schema(
        required = false,
        nullable = false,
        minimum = 1,
        maximum = 1000,
        examples(1)
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    released_seats: Option<i32>,
    /// Id of the booking that passed these seats on. Only present if there is one.
    #[schema(required = false, nullable = false, value_type = Option<i64>, minimum = 1, examples(1041))]
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<BookingId>,
    /// Your reference of the booking. Only present if it has one, and the
    /// API key has the scope `bookings:read`.
    #[schema(
        required = false,
        nullable = false,
        min_length = 1,
        max_length = 64,
        examples("order-2026-4711")
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    /// Your metadata of the booking. Only present if it has some, and the
    /// API key has the scope `bookings:read`.
    #[schema(inline, required = false, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
}

impl ChangedBooking {
    /// Returns the booking with its entity tag, and with what its user and client wrote if the caller
    /// `may_read`.
    pub(crate) fn tagged(booking: Booking, may_read: bool) -> Tagged<Self> {
        let version = booking.version();
        let changed = Self {
            seconds_left: booking.seconds_left(),
            id: booking.id,
            show_id: booking.show_id,
            user_name: may_read.then_some(booking.user_name),
            number_of_seats: booking.number_of_seats,
            status: booking.status,
            expires_at: booking.expires_at,
            extendable_until: booking.extendable_until,
            created_at: booking.created_at,
            resolved_at: booking.resolved_at,
            released_seats: booking.released_seats,
            from: booking.from,
            reference: booking.reference.filter(|_| may_read),
            metadata: booking.metadata.filter(|_| may_read),
        };
        Tagged::new(version, changed)
    }
}
