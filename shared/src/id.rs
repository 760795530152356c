//! Ids of shows and bookings, so that none is taken for the other.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Id of a show. Later shows have higher ids.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    ToSchema,
    sqlx::Type,
)]
#[serde(transparent)]
#[sqlx(transparent)]
#[schema(value_type = i64,
    examples(7), minimum = -9_223_372_036_854_775_808_i64, maximum = 9_223_372_036_854_775_807_i64)]
pub struct ShowId(pub i64);

impl From<i64> for ShowId {
    fn from(id: i64) -> Self {
        Self(id)
    }
}

/// Id of a booking. Later bookings have higher ids.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct BookingId(pub i64);

impl From<i64> for BookingId {
    fn from(id: i64) -> Self {
        Self(id)
    }
}

impl fmt::Display for ShowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BookingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
