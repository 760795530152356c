//! Rows of `bookings`, as queries return them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use crate::{
    booking::rules::Booking,
    id::{BookingId, ShowId},
    metadata::Metadata,
    postgres,
    timestamp::Timestamp,
};

/// Row of `bookings`. Its status is text until it is parsed.
#[derive(FromRow)]
pub(super) struct Row {
    pub id: BookingId,
    pub show_id: ShowId,
    pub batch_id: BookingId,
    pub user_name: String,
    pub number_of_seats: i32,
    pub status: String,
    pub expires_at: Timestamp,
    pub is_extended: bool,
    pub extendable_until: Timestamp,
    pub created_at: Timestamp,
    pub resolved_at: Option<Timestamp>,
    pub released_seats: Option<i32>,
    pub from_id: Option<BookingId>,
    pub reference: Option<String>,
    pub metadata: Option<Metadata>,
    /// The database's clock, read when the statement began or when this row was locked.
    pub read_at: DateTime<Utc>,
}

impl TryFrom<Row> for Booking {
    type Error = postgres::Error;

    fn try_from(row: Row) -> Result<Self, postgres::Error> {
        Ok(Self {
            id: row.id,
            show_id: row.show_id,
            batch_id: row.batch_id,
            user_name: row.user_name,
            number_of_seats: row.number_of_seats,
            released_seats: row.released_seats,
            from: row.from_id,
            reference: row.reference,
            metadata: row.metadata,
            status: row
                .status
                .parse()
                .map_err(|unknown| sqlx::Error::Decode(Box::new(unknown)))?,
            expires_at: row.expires_at.into(),
            is_extended: row.is_extended,
            extendable_until: row.extendable_until.into(),
            created_at: row.created_at.into(),
            resolved_at: row.resolved_at.map(Into::into),
            read_at: row.read_at,
        })
    }
}

/// Converts a row to the booking as a reader sees it.
pub(super) fn view(row: Row) -> Result<Booking, postgres::Error> {
    let read_at = row.read_at;
    Ok(Booking::try_from(row)?.as_of(read_at))
}

/// Converts rows to bookings as they are stored, by id.
pub(super) fn by_id(rows: Vec<Row>) -> Result<BTreeMap<BookingId, Booking>, postgres::Error> {
    rows.into_iter()
        .map(|row| Ok((row.id, Booking::try_from(row)?)))
        .collect()
}
