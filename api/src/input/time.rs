//! Deserialization of times.

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike, Utc};
use serde::{Deserialize, Deserializer, de::Error};

/// Parses a time: RFC 3339, or `2025-12-10 10:00:00` for UTC.
pub(crate) fn time(text: &str) -> Option<DateTime<Utc>> {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S")
        .map(|naive| naive.and_utc())
        .or_else(|_| DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()))
        .ok()
        // A leap second would be printed as the next day, and so perhaps as the year 10000.
        .filter(|time| (1..=9999).contains(&time.year()) && time.nanosecond() < 1_000_000_000)
}

/// For serde: a time in a body.
pub(crate) fn start_time<'de, D: Deserializer<'de>>(decoder: D) -> Result<DateTime<Utc>, D::Error> {
    time(&String::deserialize(decoder)?).ok_or_else(|| {
        D::Error::custom("invalid time: use 2025-12-10 10:00:00 (UTC) or 2025-12-10T10:00:00+01:00")
    })
}

/// For serde: a time in a body that may be left out, but is not null.
pub(crate) fn some_time<'de, D: Deserializer<'de>>(
    decoder: D,
) -> Result<Option<DateTime<Utc>>, D::Error> {
    start_time(decoder).map(Some)
}

/// For serde: a time or null in a body, which may be left out.
///
/// Null is not the same as left out: it removes a time.
#[expect(clippy::option_option, reason = "left out, null, or a time")]
pub(crate) fn time_or_null<'de, D: Deserializer<'de>>(
    decoder: D,
) -> Result<Option<Option<DateTime<Utc>>>, D::Error> {
    struct Time(DateTime<Utc>);
    impl<'de> Deserialize<'de> for Time {
        fn deserialize<D: Deserializer<'de>>(decoder: D) -> Result<Self, D::Error> {
            start_time(decoder).map(Self)
        }
    }
    let time = Option::<Time>::deserialize(decoder)?;
    Ok(Some(time.map(|time| time.0)))
}

/// For serde: a time in a query, which may be absent.
pub(crate) fn optional_time<'de, D: Deserializer<'de>>(
    decoder: D,
) -> Result<Option<DateTime<Utc>>, D::Error> {
    let text = String::deserialize(decoder)?;
    let time = time(&text).ok_or_else(|| {
        D::Error::custom("invalid time: use 2026-12-10T10:00:00Z or 2026-12-10T10:00:00%2B01:00")
    });
    time.map(Some)
}
