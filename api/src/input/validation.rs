//! Validation errors in the values of a request, reported all at once.
//!
//! garde's rules beside the fields decide whether a request is valid, and which values are out of
//! bounds. serde stops at the first value that it cannot decode; the other errors are then found
//! with the schema of the body.

use std::{
    collections::{BTreeMap, HashMap},
    iter,
    sync::{Arc, LazyLock, PoisonError, RwLock},
};

use garde::Validate;
use heck::ToLowerCamelCase;
use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use serde_json::{Value, json};
use serde_path_to_error::Segment;
use utoipa::ToSchema;

use super::{
    idempotency_key::{KEY_PATTERN, NOT_A_KEY},
    name::NOT_PLAIN,
    schema::merge_inlined,
    time::time,
};
use crate::output::{field_error::FieldError, problem::Problem};

/// Maximum number of reported errors: one for each value of the longest bulk request.
const MAX_ERRORS: usize = 2_000;

/// Maximum number of values in a body all of whose errors are reported; bounds memory.
///
/// A parsed value takes tens of times the memory of its text. The longest valid request has 2,500
/// values; any text of [`MAX_BODY_BYTES`](crate::config::MAX_BODY_BYTES) has fewer than this.
const MAX_VALUES: usize = 20_000;

/// Checks the bounds of all values of a decoded request, and reports each value out of bounds.
///
/// The prefix makes pointers of field names.
pub(crate) fn validate<T: Validate<Context = ()>>(value: &T, prefix: &str) -> Result<(), Problem> {
    value.validate().map_err(|report| {
        let faults = report.iter().map(|(path, error)| FieldError {
            pointer: format!("{prefix}{}", pointer(path)),
            detail: error.message().to_owned(),
        });
        invalid(faults)
    })
}

/// Converts the path of a field to JSON names: `bookings[3].user_name` to `bookings/3/userName`.
fn pointer(path: &garde::Path) -> String {
    let path = path.to_string().replace('[', ".").replace(']', "");
    let names: Vec<String> = path.split('.').map(str::to_lower_camel_case).collect();
    names.join("/")
}

/// Returns the problem with these errors, or with the first [`MAX_ERRORS`] of them.
fn invalid(faults: impl Iterator<Item = FieldError>) -> Problem {
    Problem::Invalid(faults.take(MAX_ERRORS).map(FieldError::shortened).collect())
}

/// Returns all errors of a body that cannot be decoded as a `T`.
///
/// They include `first`, at which decoding stopped. Of a body with more than [`MAX_VALUES`] it is
/// the only one.
pub(crate) fn of_unreadable<T: ToSchema>(body: &str, first: FieldError) -> Problem {
    // Each value but the outermost follows one of these.
    let values = body.bytes().filter(|byte| b",[{".contains(byte)).count();
    if values > MAX_VALUES {
        return invalid(iter::once(first));
    }
    // Decoding stopped before the end: the rest may not be JSON.
    let value: Value = match serde_json::from_str(body) {
        Ok(value) => value,
        Err(error) => return malformed(&error),
    };
    let mut faults: Vec<FieldError> = validator::<T>()
        .iter()
        .flat_map(|schema| schema.iter_errors(&value))
        .flat_map(|error| faults(&error))
        .collect();
    if !faults.iter().any(|fault| fault.pointer == first.pointer) {
        faults.push(first);
    }
    faults.sort_by(|a, b| segments(&a.pointer).cmp(segments(&b.pointer)));
    invalid(faults.into_iter())
}

/// Splits a pointer into segments that sort by name, or by number in an array.
fn segments(pointer: &str) -> impl Iterator<Item = (Option<usize>, &str)> {
    pointer.split('/').map(|name| (name.parse().ok(), name))
}

/// Returns the error of the member of a body at which serde stopped.
///
/// The member has the wrong type, or is missing, unknown or repeated.
pub(crate) fn of_member(error: &serde_path_to_error::Error<serde_json::Error>) -> FieldError {
    let text = error.inner().to_string();
    let detail = text.split(" at line ").next().unwrap_or(&text);
    let path = error.path().iter().map(|segment| match segment {
        Segment::Seq { index } => index.to_string(),
        Segment::Map { key } => key.clone(),
        Segment::Enum { .. } | Segment::Unknown => String::new(),
    });
    let pointer = path
        .chain(named(detail).map(str::to_owned))
        .map(|member| format!("/{}", escaped(&member)))
        .collect();
    FieldError {
        pointer,
        detail: detail.to_owned(),
    }
}

/// Returns the error of the query parameter at which serde stopped.
pub(crate) fn of_parameter(
    error: &serde_path_to_error::Error<serde_urlencoded::de::Error>,
) -> FieldError {
    let detail = error.inner().to_string();
    let pointer = match named(&detail) {
        Some(name) => name.to_owned(),
        None => error.path().to_string(),
    };
    FieldError { pointer, detail }
}

/// Returns the member that a message of serde names, if serde reports the error at its parent.
fn named(detail: &str) -> Option<&str> {
    ["missing field `", "duplicate field `"]
        .iter()
        .find_map(|prefix| detail.strip_prefix(prefix)?.strip_suffix('`'))
}

/// Escapes the name of a member for a JSON pointer (RFC 6901).
fn escaped(member: &str) -> String {
    member.replace('~', "~0").replace('/', "~1")
}

/// Returns the problem of a body that is not JSON.
pub(crate) fn malformed(error: &serde_json::Error) -> Problem {
    if error.is_eof() && (error.line(), error.column()) == (1, 0) {
        return Problem::Malformed("The body is empty.".into());
    }
    Problem::Malformed(format!("The body is not valid JSON: {error}."))
}

/// Returns the validator of a body's schema.
fn validator<T: ToSchema>() -> Option<Arc<Validator>> {
    /// Validators by the names of their schemas.
    static COMPILED: LazyLock<RwLock<HashMap<String, Arc<Validator>>>> =
        LazyLock::new(RwLock::default);
    let name = T::name();
    let compiled = COMPILED.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(validator) = compiled.get(name.as_ref()) {
        return Some(validator.clone());
    }
    drop(compiled);
    let mut schema = serde_json::to_value(T::schema()).ok()?;
    let mut parts = Vec::new();
    T::schemas(&mut parts);
    let parts: BTreeMap<_, _> = parts.into_iter().collect();
    // Where the references of the OpenAPI document point to.
    schema["components"] = json!({ "schemas": parts });
    merge_inlined(&mut schema);
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .with_format("date-time", |text: &str| time(text).is_some())
        .build(&schema)
        .ok()?;
    let validator = Arc::new(validator);
    let mut compiled = COMPILED.write().unwrap_or_else(PoisonError::into_inner);
    compiled.insert(name.into_owned(), validator.clone());
    Some(validator)
}

/// Converts an error of the schema: an error about several fields becomes a fault of each.
fn faults(error: &ValidationError<'_>) -> Vec<FieldError> {
    let place = error.instance_path().as_str();
    let field = |name: &str, detail: &str| FieldError {
        pointer: format!("{place}/{}", escaped(name)),
        detail: detail.to_owned(),
    };
    let here = |detail: String| FieldError {
        pointer: place.to_owned(),
        detail,
    };
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            vec![field(property.as_str().unwrap_or_default(), "is missing")]
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|name| field(name, "unknown field"))
            .collect(),
        // In the words of garde's messages.
        ValidationErrorKind::Minimum { limit } => {
            vec![here(format!("lower than {limit}"))]
        }
        ValidationErrorKind::Maximum { limit } => {
            vec![here(format!("greater than {limit}"))]
        }
        ValidationErrorKind::Pattern { pattern } if pattern == KEY_PATTERN => {
            vec![here(NOT_A_KEY.to_owned())]
        }
        ValidationErrorKind::Pattern { .. } => {
            vec![here(NOT_PLAIN.to_owned())]
        }
        _ => vec![here(
            // Without the value: it may be long, and it belongs to the client.
            error.masked().to_string(),
        )],
    }
}
