//! Responses to repeated requests.

use axum::{
    http::HeaderValue,
    response::{IntoResponseParts, ResponseParts},
};

/// Marks a response, if an earlier request with the same `Idempotency-Key` did the work.
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
