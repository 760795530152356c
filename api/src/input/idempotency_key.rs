//! Extractor for the header `Idempotency-Key`.

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::Serialize;
use shared::idempotency::{Claim, Key};

use utoipa::{
    IntoParams,
    openapi::{
        Object, Type,
        path::{Parameter, ParameterIn},
    },
};

use super::parameter;
use crate::output::problem::Problem;

/// The header `Idempotency-Key`, if it was sent, which makes a request safe to retry.
pub(crate) struct IdempotencyKey(Option<String>);

/// Maximum length of an idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 255;

impl IdempotencyKey {
    const HEADER: &str = "idempotency-key";

    /// Returns the owner's claim to the key for this request; none if no key was sent.
    pub(crate) fn claim(self, owner: i64, operation: &str, body: &impl Serialize) -> Option<Claim> {
        let key = Key {
            owner,
            text: self.0?,
        };
        Some(Claim::new(key, operation, body))
    }
}

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let schema = Object::builder()
            .schema_type(Type::String)
            .min_length(Some(1))
            .max_length(Some(MAX_KEY_BYTES))
            .pattern(Some("^[!-~]+$"));
        parameter::header(
            "Idempotency-Key",
            "A text of your choice that makes the request safe to retry. A repeated request with an equal body \
             within 24 hours creates nothing, and returns what the first request created, in its current state. \
             A refused request does not use up its key. Keys belong to their caller, and are shared by shows and \
             bookings. Use a new key, such as a UUID, for each show or booking that you want.",
            schema,
            "0b8ae02f-5e0c-4b9a-9d37-3a1f6f0d2c11",
        )
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(Self::HEADER).iter();
        let Some(key) = values.next() else {
            return Ok(Self(None));
        };
        let is_valid = (1..=MAX_KEY_BYTES).contains(&key.len())
            && key.as_bytes().iter().all(u8::is_ascii_graphic);
        match key.to_str() {
            Ok(key) if is_valid && values.next().is_none() => Ok(Self(Some(key.to_owned()))),
            _ => Err(Problem::Malformed(format!(
                "Send Idempotency-Key once, with 1 to {MAX_KEY_BYTES} visible ASCII characters."
            ))),
        }
    }
}
