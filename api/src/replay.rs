//! Answers to requests that were repeated.

use axum::{
    http::HeaderValue,
    response::{IntoResponseParts, ResponseParts},
};

/// Marks the answer to a request that an earlier one with the same `Idempotency-Key` had done.
pub(crate) struct Replay(pub(crate) bool);

impl IntoResponseParts for Replay {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        if self.0 {
            parts
                .headers_mut()
                .insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        Ok(parts)
    }
}
