//! The parts of a request, decoded and validated. What does not fit is answered with one of our problems.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{StatusCode, header::CONTENT_TYPE, request::Parts},
};
use garde::Validate;
use heck::ToLowerCamelCase;
use serde::{Serialize, de::DeserializeOwned};
use shared::idempotency::{Claim, Key};

use crate::problem::{Fault, Problem};

/// The owner of idempotency keys that came without an API key.
const ANONYMOUS: i64 = 0;

/// A JSON body whose values are within their bounds.
pub(crate) struct Json<T>(pub(crate) T);

impl<S, T> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Validate<Context = ()>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !says_json(&request) {
            return Err(Problem::NotJson);
        }
        let body =
            Bytes::from_request(request, state)
                .await
                .map_err(|rejection| match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => Problem::BodyTooLarge,
                    _ => Problem::Malformed("The body did not arrive whole.".into()),
                })?;
        // serde would also take an array of the fields' values.
        if body.trim_ascii_start().starts_with(b"[") {
            return Err(Problem::Invalid(vec![Fault {
                pointer: String::new(),
                detail: "the body must be an object".to_owned(),
            }]));
        }
        let value: T = decode(&body)?;
        validate(&value, "/")?;
        Ok(Self(value))
    }
}

fn says_json(request: &Request) -> bool {
    request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| {
            let kind = kind.trim().to_ascii_lowercase();
            kind == "application/json"
                || kind.starts_with("application/") && kind.ends_with("+json")
        })
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut decoder = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut decoder).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if error.is_data() {
            Problem::Invalid(vec![fault(&path, &error)])
        } else {
            Problem::Malformed(format!("The body is not valid JSON: {error}."))
        }
    })?;
    decoder
        .end()
        .map_err(|error| Problem::Malformed(format!("The body is not valid JSON: {error}.")))?;
    Ok(value)
}

/// A value of the wrong type, a missing field or an unknown one.
fn fault(path: &str, error: &serde_json::Error) -> Fault {
    let text = error.to_string();
    let detail = text.split(" at line ").next().unwrap_or(&text);
    // A missing field is reported at the object that lacks it.
    let missing = detail
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'));
    let pointer = match (missing, path) {
        (Some(field), _) => format!("/{field}"),
        (None, ".") => String::new(),
        (None, path) => format!("/{}", path.replace('.', "/")),
    };
    Fault {
        pointer,
        detail: detail.to_owned(),
    }
}

fn validate<T: Validate<Context = ()>>(value: &T, prefix: &str) -> Result<(), Problem> {
    value.validate().map_err(|report| {
        let faults = report.iter().map(|(path, error)| Fault {
            pointer: format!("{prefix}{}", path.to_string().to_lower_camel_case()),
            detail: error.message().to_owned(),
        });
        Problem::Invalid(faults.collect())
    })
}

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
        let decoder = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        let value: T = serde_path_to_error::deserialize(decoder).map_err(|error| {
            Problem::Malformed(format!(
                "Query parameter {}: {}.",
                error.path(),
                error.inner()
            ))
        })?;
        validate(&value, "")?;
        Ok(Self(value))
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

    /// A claim of the key for this request; none without a key.
    pub(crate) fn claim(self, operation: &str, body: &impl Serialize) -> Option<Claim> {
        let key = Key {
            owner: ANONYMOUS,
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
