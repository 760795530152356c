//! The database's clock, and timestamps of rows.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{
    Decode, Postgres, Type,
    error::BoxDynError,
    postgres::{PgTypeInfo, PgValueFormat, PgValueRef},
};

use crate::postgres;

/// Reads the database's clock.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn now(database: impl sqlx::PgExecutor<'_>) -> Result<DateTime<Utc>, postgres::Error> {
    let now = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#);
    Ok(now.fetch_one(database).await?)
}

/// Timestamp of a row, clamped to the years 1 to 9999, which a response can have.
///
/// PostgreSQL's timestamps go from 4713 BC to 294276, and to infinity. `chrono` panics when it
/// reads a value beyond its own bounds. Our tables have CHECKs against such values, so this is for
/// a row of another's table, or of one without its CHECK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Timestamp(DateTime<Utc>);

/// Microseconds since 1970 of the first time, `0001-01-01T00:00:00Z`, and of the last,
/// `9999-12-31T23:59:59.999999Z`.
const FIRST: i64 = -62_135_596_800_000_000;
const LAST: i64 = 253_402_300_799_999_999;

/// Microseconds from 1970 to 2000, from which PostgreSQL counts.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl Timestamp {
    fn from_postgres(micros: i64) -> Self {
        let micros = micros.saturating_add(POSTGRES_EPOCH).clamp(FIRST, LAST);
        Self(DateTime::from_timestamp_micros(micros).unwrap_or_default())
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(at: Timestamp) -> Self {
        at.0
    }
}

impl Type<Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        <DateTime<Utc> as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Timestamp {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => i64::decode(value).map(Self::from_postgres),
            PgValueFormat::Text => DateTime::decode(value).map(Self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgresql_can_have_is_brought_within_what_an_answer_can_have() {
        for (micros, expected) in [
            (0, "2000-01-01 00:00:00 UTC"),
            (1, "2000-01-01 00:00:00.000001 UTC"),
            (i64::MIN, "0001-01-01 00:00:00 UTC"),
            (i64::MAX, "9999-12-31 23:59:59.999999 UTC"),
            (LAST - POSTGRES_EPOCH + 1, "9999-12-31 23:59:59.999999 UTC"),
            (FIRST - POSTGRES_EPOCH, "0001-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(Timestamp::from_postgres(micros).0.to_string(), expected);
        }
    }
}
