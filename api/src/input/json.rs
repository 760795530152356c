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
        let body = read_json(request, MAX_BYTES).await?;
        decode_valid(text(&body)?).map(Self)
    }
}

/// A decoded and validated JSON body, or the default if there is none.
///
/// Earlier versions ignored any body of these requests. A body that is not declared to be JSON is
/// still ignored, and so are members that `T` does not have, if it allows them.
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl<S, T> FromRequest<S> for OptionalJson<T>
where
    S: Send + Sync,
    T: Default + DeserializeOwned + Validate<Context = ()> + ToSchema,
{
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !request.headers().contains_key(CONTENT_TYPE) || !is_json(&media_type(request.headers()))
        {
            return Ok(Self(T::default()));
        }
        let body = read_json(request, MAX_BODY_BYTES).await?;
        if [&b""[..], b"null"].contains(&body.trim_ascii()) {
            return Ok(Self(T::default()));
        }
        decode_valid(text(&body)?).map(Self)
    }
}

/// Reads a body that is declared to be JSON.
pub(crate) async fn read_json(request: Request, max_bytes: usize) -> Result<Vec<u8>, Problem> {
    check_headers(request.headers())?;
    read(request.into_body(), max_bytes).await
}

/// Decodes and validates a JSON object.
pub(crate) fn decode_valid<T>(body: &str) -> Result<T, Problem>
where
    T: DeserializeOwned + Validate<Context = ()> + ToSchema,
{
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
    Ok(value)
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
    let media_type = media_type(headers);
    if !is_json(&media_type) {
        return Err(Problem::NotJson);
    }
    let is_utf8 = media_type
        .split(';')
        .skip(1)
        .map(str::trim)
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

/// Returns the media type of the body in lower case, with its parameters.
fn media_type(headers: &HeaderMap) -> String {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase()
}

fn is_json(media_type: &str) -> bool {
    let kind = media_type.split(';').next().unwrap_or_default().trim();
    kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json")
}

/// Returns the text of a body.
pub(crate) fn text(body: &[u8]) -> Result<&str, Problem> {
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
