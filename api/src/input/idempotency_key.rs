//! Idempotency keys: the header `Idempotency-Key`, and the keys in the body of a bulk request.

use axum::{extract::FromRequestParts, http::request::Parts};
use garde::Validate;
use serde::{Deserialize, Serialize};
use shared::idempotency::{Claim, Key, MAX_KEY_BYTES};
use utoipa::{
    IntoParams,
    openapi::{
        Object, Type,
        path::{Parameter, ParameterIn},
    },
};

use super::parameter;
use crate::output::problem::Problem;

/// The idempotency key of a request, if it has one, which makes the request safe to retry.
///
/// As an argument of a handler it is the header `Idempotency-Key`.
#[derive(Debug)]
pub(crate) struct IdempotencyKey(Option<String>);

/// Pattern of an idempotency key: visible ASCII characters. Its length is not part of it.
pub(crate) const KEY_PATTERN: &str = "^[!-~]*$";

/// Error of a text that does not match [`KEY_PATTERN`].
pub(crate) const NOT_A_KEY: &str = "contains a character that is not visible ASCII";

/// Name of the header.
const HEADER: &str = "idempotency-key";

impl IdempotencyKey {
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
            .pattern(Some(KEY_PATTERN));
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
        let mut values = parts.headers.get_all(HEADER).iter();
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

/// An idempotency key in a body: 1 to 255 visible ASCII characters.
#[derive(Debug, Deserialize, Validate)]
#[serde(transparent)]
#[garde(transparent)]
pub(crate) struct KeyInBody(
    #[garde(length(bytes, min = 1, max = MAX_KEY_BYTES), custom(visible))] String,
);

#[expect(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
fn visible(text: &str, &(): &()) -> garde::Result {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(garde::Error::new(NOT_A_KEY))
    }
}

impl From<Option<KeyInBody>> for IdempotencyKey {
    fn from(key: Option<KeyInBody>) -> Self {
        Self(key.map(|key| key.0))
    }
}

/// Rejects the header `Idempotency-Key`, for a request whose body has several keys.
///
/// If the header were ignored, the client would believe that it can retry the request.
pub(crate) struct NoIdempotencyKey;

impl<S: Send + Sync> FromRequestParts<S> for NoIdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if parts.headers.contains_key(HEADER) {
            return Err(Problem::Malformed(
                "Send no header Idempotency-Key with this request: each booking in the body has its own \
                 `idempotencyKey`."
                    .to_owned(),
            ));
        }
        Ok(Self)
    }
}
