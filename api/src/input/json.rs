//! Extractor of JSON bodies, which decodes and validates them or reports all errors.

use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, Request},
    http::{
        HeaderMap,
        header::{CONTENT_ENCODING, CONTENT_TYPE},
    },
};
use futures_util::StreamExt;
use garde::Validate;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use super::validation::{self, validate};
use crate::{
    config::MAX_BODY_BYTES,
    output::{field_error::FieldError, problem::Problem},
};

/// A decoded and validated JSON body of at most `MAX_BYTES`.
pub(crate) struct Json<T, const MAX_BYTES: usize = MAX_BODY_BYTES>(pub(crate) T);

impl<S, T, const MAX_BYTES: usize> FromRequest<S> for Json<T, MAX_BYTES>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate<Context = ()> + ToSchema,
{
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        check_headers(request.headers())?;
        let body = read(request.into_body(), MAX_BYTES).await?;
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

/// Reads a body of at most `max_bytes`.
///
/// It copies the chunks, because a client can send each byte as a chunk, and a list of them would
/// take many times the memory.
async fn read(body: Body, max_bytes: usize) -> Result<Vec<u8>, Problem> {
    // Before the first read, which makes a client that sent `Expect: 100-continue` send the body.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max_bytes {
        return Err(Problem::BodyTooLarge { max_bytes });
    }
    let mut bytes = Vec::with_capacity(announced);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::Malformed("The body is incomplete.".into()))?;
        if chunk.len() > max_bytes - bytes.len() {
            return Err(Problem::BodyTooLarge { max_bytes });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
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
    // Only a body that can't be decoded is decoded again, to find where its fault is.
    serde_json::from_str(body).or_else(|_| decode_with_path(body))
}

fn decode_with_path<T: DeserializeOwned + ToSchema>(body: &str) -> Result<T, Problem> {
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
