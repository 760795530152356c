//! Status of a booking.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// Status of a booking: `PENDING → CONFIRMED | FAILED | CANCELLED`, `CONFIRMED → CANCELLED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BookingStatus {
    /// A hold: the seats are taken until the deadline.
    Pending,
    /// The seats are sold.
    Confirmed,
    /// The hold expired; the seats are back on sale.
    Failed,
    /// The client cancelled the booking; the seats are back on sale.
    Cancelled,
}

impl BookingStatus {
    /// Returns the name, as in JSON and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Confirmed => "CONFIRMED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl fmt::Display for BookingStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not the name of a [`BookingStatus`].
#[derive(Debug, Error)]
#[error("{0:?} is not a booking status (PENDING, CONFIRMED, FAILED or CANCELLED)")]
pub struct UnknownStatus(String);

impl FromStr for BookingStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        [
            Self::Pending,
            Self::Confirmed,
            Self::Failed,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|status| status.as_str() == text)
        .ok_or_else(|| UnknownStatus(text.to_owned()))
    }
}
