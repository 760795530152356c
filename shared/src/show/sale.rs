//! When the seats of a show can be taken.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Status of a show.
///
/// Bookings that were made can be confirmed, extended and cancelled in every status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ShowStatus {
    /// Not yet on sale.
    Draft,
    /// On sale within its sales window.
    OnSale,
    /// Not on sale for now.
    Paused,
    /// The performance does not take place.
    Cancelled,
    /// No longer on sale.
    Archived,
}

impl ShowStatus {
    /// Returns the name, as in JSON and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "DRAFT",
            Self::OnSale => "ON_SALE",
            Self::Paused => "PAUSED",
            Self::Cancelled => "CANCELLED",
            Self::Archived => "ARCHIVED",
        }
    }
}

impl fmt::Display for ShowStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Status and sales window of a show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sale {
    /// Status of the show.
    pub status: ShowStatus,
    /// Instant from which seats can be taken; `None`: always.
    pub start: Option<DateTime<Utc>>,
    /// Instant from which seats can no longer be taken; `None`: never.
    pub end: Option<DateTime<Utc>>,
}

impl Sale {
    /// On sale, without a window.
    pub const ALWAYS: Self = Self {
        status: ShowStatus::OnSale,
        start: None,
        end: None,
    };

    /// Returns whether seats can be taken at this time.
    #[must_use]
    pub fn is_open(&self, now: DateTime<Utc>) -> bool {
        self.status == ShowStatus::OnSale
            && self.start.is_none_or(|start| start <= now)
            && self.end.is_none_or(|end| now < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_can_be_taken_from_the_start_until_before_the_end() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let sale = |status, start: Option<i64>, end: Option<i64>| Sale {
            status,
            start: start.map(at),
            end: end.map(at),
        };
        let is_open = |sale: Sale| [9, 10, 19, 20].map(|second| sale.is_open(at(second)));
        let on_sale = |start, end| is_open(sale(ShowStatus::OnSale, start, end));
        assert_eq!(on_sale(None, None), [true; 4]);
        assert_eq!(on_sale(Some(10), None), [false, true, true, true]);
        assert_eq!(on_sale(None, Some(20)), [true, true, true, false]);
        assert_eq!(on_sale(Some(10), Some(20)), [false, true, true, false]);
        for status in [
            ShowStatus::Draft,
            ShowStatus::Paused,
            ShowStatus::Cancelled,
            ShowStatus::Archived,
        ] {
            assert_eq!(is_open(sale(status, None, None)), [false; 4], "{status}");
        }
    }
}
