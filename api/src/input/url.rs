//! Extractors for the query and the path of a request.

use axum::{extract::FromRequestParts, http::request::Parts};
use garde::Validate;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::validation::{self, validate};
use crate::output::problem::Problem;

/// A decoded and validated query string.
pub(crate) struct Query<T>(pub(crate) T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate<Context = ()>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        // The decoder would replace invalid UTF-8, and the handler would search for something else.
        percent_decode_str(query)
            .decode_utf8()
            .map_err(|_| Problem::Malformed("The query string is not valid UTF-8.".into()))?;
        let decoder = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        let value: T = serde_path_to_error::deserialize(decoder)
            .map_err(|error| Problem::MalformedQuery(validation::of_parameter(&error)))?;
        validate(&value, "")?;
        Ok(Self(value))
    }
}

/// The decoded path parameters.
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
pub(crate) struct Id<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::<T>::from_request_parts(parts, state)
            .await
            .map(|path| Self(path.0))
            .map_err(|_| {
                Problem::Malformed("The id in the path is not an integer below 2^63.".into())
            })
    }
}
