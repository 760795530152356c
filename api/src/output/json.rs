//! JSON of responses to the most frequent requests.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header::CONTENT_TYPE},
    response::Response,
};
use chrono::{DateTime, Datelike, Timelike, Utc};
use serde::{Serialize, Serializer};

/// Capacity of a body, in bytes. A booking or a show with a usual name takes less.
const BODY_BYTES: usize = 512;

/// Capacity for headers: those of a response, and those that the middleware adds.
const HEADERS: usize = 12;

/// Returns a response with this body.
///
/// It allocates body and headers once, where axum's would grow them several times.
pub(super) fn response(body: &impl Serialize) -> Response {
    let mut bytes = Vec::with_capacity(BODY_BYTES);
    serde_json::to_writer(&mut bytes, body).expect("views have only keys that are texts");
    let mut response = Response::new(Body::from(bytes));
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.headers_mut() = headers;
    response
}

/// For serde: a time in RFC 3339, as chrono would write it, in a third of the time.
pub(super) fn time<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    let (year, nanos) = (at.year(), at.nanosecond());
    if !(0..=9999).contains(&year) || nanos % 1_000 != 0 || nanos >= 1_000_000_000 {
        return at.serialize(serializer);
    }
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    write(&mut text[0..4], year.unsigned_abs());
    write(&mut text[5..7], at.month());
    write(&mut text[8..10], at.day());
    write(&mut text[11..13], at.hour());
    write(&mut text[14..16], at.minute());
    write(&mut text[17..19], at.second());
    write(&mut text[20..26], nanos / 1_000);
    // As many groups of three digits as are needed.
    let end = match nanos {
        0 => 19,
        _ if nanos % 1_000_000 == 0 => 23,
        _ => 26,
    };
    text[end] = b'Z';
    let text = str::from_utf8(&text[..=end]).unwrap_or_default();
    serializer.serialize_str(text)
}

/// For serde: a [`time`], if there is one.
#[expect(clippy::ref_option, reason = "serde's signature")]
pub(super) fn optional_time<S: Serializer>(
    at: &Option<DateTime<Utc>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => time(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// Writes the last digits of a number.
fn write(digits: &mut [u8], mut number: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(at: DateTime<Utc>) -> String {
        time(&at, serde_json::value::Serializer)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn text_of_chrono(at: DateTime<Utc>) -> String {
        serde_json::to_value(at)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }

    proptest! {
        #[test]
        fn times_are_written_as_chrono_writes_them(
            seconds in -100_000_000_000_i64..300_000_000_000,
            nanos in prop_oneof![
                Just(0),
                (0..1_000_u32).prop_map(|millis| millis * 1_000_000),
                (0..1_000_000_u32).prop_map(|micros| micros * 1_000),
                0..2_000_000_000_u32,
            ],
        ) {
            if let Some(at) = DateTime::from_timestamp(seconds, nanos) {
                prop_assert_eq!(text(at), text_of_chrono(at));
            }
        }
    }
}
