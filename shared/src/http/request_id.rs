//! The id of a request: the client's own, or a random one.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Header with the id of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum length of a request id that is accepted from a client, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Returns the client's own id of a request if it is valid, and otherwise a random one.
pub(super) fn of(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(REQUEST_ID)
        .filter(|id| is_sensible(id))
        .cloned()
        .unwrap_or_else(random)
}

fn is_sensible(id: &HeaderValue) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn random() -> HeaderValue {
    let id = format!("{:032x}", fastrand::u128(..));
    HeaderValue::from_maybe_shared(id).expect("hexadecimal digits are a valid header value")
}
