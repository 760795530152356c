//! What is wrong with the values of a request: all of it at once.
//!
//! garde's rules beside the fields tell whether a request is valid, and what is out of bounds. serde stops at the first value
//! that it can't read; then the rest is found with the schema by which the API describes itself.

use std::{collections::HashMap, sync::LazyLock};

use garde::Validate;
use heck::ToLowerCamelCase;
use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use serde::Serialize;
use serde_json::Value;
use serde_path_to_error::Segment;
use utoipa::ToSchema;

use crate::{extract::NOT_PLAIN, openapi, problem::Problem, routes::shows};

/// One value that is out of bounds.
#[derive(Debug, Serialize)]
pub(crate) struct Fault {
    /// Where in the body (JSON pointer) or the query (parameter name).
    pub(crate) pointer: String,
    /// What is wrong with it.
    pub(crate) detail: String,
}

/// All values of a decoded request that are out of bounds. The prefix makes their names pointers.
pub(crate) fn validate<T: Validate<Context = ()>>(value: &T, prefix: &str) -> Result<(), Problem> {
    value.validate().map_err(|report| {
        let faults = report.iter().map(|(path, error)| Fault {
            pointer: format!("{prefix}{}", path.to_string().to_lower_camel_case()),
            detail: error.message().to_owned(),
        });
        Problem::Invalid(faults.collect())
    })
}

/// All faults of a body that can't be read as a `T`, the one at which reading it ended among them.
pub(crate) fn of_unreadable<T: ToSchema>(body: &str, first: Fault) -> Problem {
    // Reading ended before the end: the rest need not be JSON.
    let value: Value = match serde_json::from_str(body) {
        Ok(value) => value,
        Err(error) => return malformed(&error),
    };
    let mut faults: Vec<Fault> = SCHEMAS
        .get(T::name().as_ref())
        .into_iter()
        .flat_map(|schema| schema.iter_errors(&value))
        .flat_map(|error| faults(&error))
        .collect();
    if !faults.iter().any(|fault| fault.pointer == first.pointer) {
        faults.push(first);
    }
    faults.sort_unstable_by(|a, b| a.pointer.cmp(&b.pointer));
    Problem::Invalid(faults)
}

/// The member of a body at which serde stopped: a value of the wrong type, a missing member, an unknown one, or one that is
/// there twice.
pub(crate) fn of_member(error: &serde_path_to_error::Error<serde_json::Error>) -> Fault {
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
    Fault {
        pointer,
        detail: detail.to_owned(),
    }
}

/// The parameter of a query at which serde stopped.
pub(crate) fn of_parameter(
    error: &serde_path_to_error::Error<serde_urlencoded::de::Error>,
) -> Fault {
    let detail = error.inner().to_string();
    let pointer = match named(&detail) {
        Some(name) => name.to_owned(),
        None => error.path().to_string(),
    };
    Fault { pointer, detail }
}

/// The member that a message of serde is about, where serde reports it at what the member is in.
fn named(detail: &str) -> Option<&str> {
    ["missing field `", "duplicate field `"]
        .iter()
        .find_map(|prefix| detail.strip_prefix(prefix)?.strip_suffix('`'))
}

/// A member's name in a JSON pointer (RFC 6901).
fn escaped(member: &str) -> String {
    member.replace('~', "~0").replace('/', "~1")
}

/// A body that is no JSON.
pub(crate) fn malformed(error: &serde_json::Error) -> Problem {
    if error.is_eof() && (error.line(), error.column()) == (1, 0) {
        return Problem::Malformed("There is no body.".into());
    }
    Problem::Malformed(format!("The body is not valid JSON: {error}."))
}

/// The schemas of all bodies, by their names.
static SCHEMAS: LazyLock<HashMap<String, Validator>> = LazyLock::new(|| {
    let mut document = openapi::document();
    let schemas = document["components"]["schemas"].take();
    let schemas = schemas.as_object().into_iter().flatten();
    schemas
        .filter_map(|(name, schema)| {
            // The schema of an answer may refer to others; bodies that are sent do not.
            let validator = jsonschema::options()
                .should_validate_formats(true)
                .with_format("date-time", |text: &str| shows::time(text).is_some())
                .build(schema)
                .ok()?;
            Some((name.clone(), validator))
        })
        .collect()
});

/// An error that is about several fields is a fault of each.
fn faults(error: &ValidationError<'_>) -> Vec<Fault> {
    let place = error.instance_path().as_str();
    let field = |name: &str, detail: &str| Fault {
        pointer: format!("{place}/{}", escaped(name)),
        detail: detail.to_owned(),
    };
    let here = |detail: String| Fault {
        pointer: place.to_owned(),
        detail,
    };
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            vec![field(property.as_str().unwrap_or_default(), "is missing")]
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|name| field(name, "there is no such field"))
            .collect(),
        // In garde's words.
        ValidationErrorKind::Minimum { limit } => {
            vec![here(format!("lower than {limit}"))]
        }
        ValidationErrorKind::Maximum { limit } => {
            vec![here(format!("greater than {limit}"))]
        }
        ValidationErrorKind::Pattern { .. } => {
            vec![here(NOT_PLAIN.to_owned())]
        }
        _ => vec![here(
            // Without the value: it may be long, and it is the client's.
            error.masked().to_string(),
        )],
    }
}
