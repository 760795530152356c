//! The parts of a request, decoded and validated. What does not fit is answered with one of our problems.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use garde::Validate;
use percent_encoding::percent_decode_str;
use serde::{Serialize, de::DeserializeOwned};
use shared::idempotency::{Claim, Key};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use crate::json_body::Json;
use crate::{
    AppState,
    admin::AdminState,
    faults::{self, validate},
    problem::Problem,
};

/// A query string whose values are within their bounds.
pub(crate) struct Query<T>(pub(crate) T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate<Context = ()>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        // Otherwise what is none would be replaced, and something else be looked for.
        percent_decode_str(query)
            .decode_utf8()
            .map_err(|_| Problem::Malformed("The query is not UTF-8.".into()))?;
        let decoder = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        let value: T = serde_path_to_error::deserialize(decoder)
            .map_err(|error| Problem::MalformedQuery(faults::of_parameter(&error)))?;
        validate(&value, "")?;
        Ok(Self(value))
    }
}

/// A place for a list.
pub(crate) struct ListPlace {
    _held: OwnedSemaphorePermit,
}

impl ListPlace {
    fn one_of(places: &Arc<Semaphore>) -> Result<Self, Problem> {
        let place = places.clone().try_acquire_owned();
        place
            .map(|held| Self { _held: held })
            .map_err(|_| Problem::Overloaded)
    }
}

impl FromRequestParts<Arc<AppState>> for ListPlace {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, state: &Arc<AppState>) -> Result<Self, Problem> {
        Self::one_of(&state.lists)
    }
}

impl FromRequestParts<Arc<AdminState>> for ListPlace {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, state: &Arc<AdminState>) -> Result<Self, Problem> {
        Self::one_of(&state.lists)
    }
}

/// The variable parts of the path.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|path| Self(path.0))
            .map_err(|rejection| Problem::Malformed(format!("{}.", rejection.body_text())))
    }
}

/// The id in the path.
pub(crate) struct Id(pub(crate) i64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::<i64>::from_request_parts(parts, state)
            .await
            .map(|path| Self(path.0))
            .map_err(|_| {
                Problem::Malformed("The id in the path is not a whole number below 2^63.".into())
            })
    }
}

/// The header `Idempotency-Key`, if it was sent: what makes a request repeatable.
pub(crate) struct IdempotencyKey(Option<String>);

/// The longest idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 255;

impl IdempotencyKey {
    const HEADER: &str = "idempotency-key";

    /// A claim of the key for this request of its owner; none without a key.
    pub(crate) fn claim(self, owner: i64, operation: &str, body: &impl Serialize) -> Option<Claim> {
        let key = Key {
            owner,
            text: self.0?,
        };
        Some(Claim::new(key, operation, body))
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
                "Idempotency-Key is sent once and has 1 to {MAX_KEY_BYTES} visible ASCII characters."
            ))),
        }
    }
}

/// For validation: no control character, so that a name can be shown anywhere as it is. NUL, which the
/// database can't store, is one of them.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
pub(crate) fn no_control_character(text: &str, &(): &()) -> garde::Result {
    if text.chars().any(char::is_control) {
        return Err(garde::Error::new("contains a control character"));
    }
    Ok(())
}
