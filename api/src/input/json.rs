//! Extractor of JSON bodies, which decodes and validates them or reports all errors.

use axum::{
    body::{Bytes, HttpBody},
    extract::{FromRequest, Request},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_ENCODING, CONTENT_TYPE},
    },
};
use garde::Validate;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use super::validation::{self, validate};
use crate::{
    config::MAX_BODY_BYTES,
    output::{field_error::FieldError, problem::Problem},
};

/// A decoded and validated JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<S, T> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate<Context = ()> + ToSchema,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        check_headers(request.headers())?;
        // Before the first read of the body: that read makes a client that sent
        // `Expect: 100-continue` send the body.
        if request.body().size_hint().lower() > MAX_BODY_BYTES as u64 {
            return Err(Problem::BodyTooLarge);
        }
        let body =
            Bytes::from_request(request, state)
                .await
                .map_err(|rejection| match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => Problem::BodyTooLarge,
                    _ => Problem::Malformed("The body is incomplete.".into()),
                })?;
        let body = text(&body)?;
        // serde would also accept an array of the field values.
        if body.trim_ascii_start().starts_with('[') {
            let first = FieldError {
                pointer: String::new(),
                detail: "value is not of type \"object\"".to_owned(),
            };
            return Err(validation::of_unreadable::<T>(body, first));
        }
        let value: T = decode(body)?;
        validate(&value, "/")?;
        Ok(Self(value))
    }
}

/// Checks that the headers declare JSON in UTF-8 without a content encoding.
fn check_headers(headers: &HeaderMap) -> Result<(), Problem> {
    let media_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase();
    let mut parts = media_type.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|kind| {
        kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json")
    });
    if !is_json {
        return Err(Problem::NotJson);
    }
    let is_utf8 = parts
        .filter_map(|parameter| parameter.strip_prefix("charset="))
        .all(|charset| ["utf-8", "utf8"].contains(&charset.trim_matches('"')));
    if !is_utf8 {
        return Err(Problem::NotUtf8);
    }
    let is_plain = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if !is_plain {
        return Err(Problem::ContentEncoding);
    }
    Ok(())
}

fn text(body: &[u8]) -> Result<&str, Problem> {
    let text = str::from_utf8(body).map_err(|error| {
        let position = error.valid_up_to() + 1;
        Problem::Malformed(format!("The body is not valid UTF-8 at byte {position}."))
    })?;
    if text.starts_with('\u{feff}') {
        let detail = "The body starts with a byte order mark. Send it without one.";
        return Err(Problem::Malformed(detail.to_owned()));
    }
    Ok(text)
}

fn decode<T: DeserializeOwned + ToSchema>(body: &str) -> Result<T, Problem> {
    let mut decoder = serde_json::Deserializer::from_str(body);
    let value = serde_path_to_error::deserialize(&mut decoder).map_err(|error| {
        if error.inner().is_data() {
            validation::of_unreadable::<T>(body, validation::of_member(&error))
        } else {
            validation::malformed(error.inner())
        }
    })?;
    decoder
        .end()
        .map_err(|error| validation::malformed(&error))?;
    Ok(value)
}
