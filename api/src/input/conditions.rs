//! Extractors for the headers `If-Match` and `If-None-Match` (RFC 9110, section 13).

use axum::{
    extract::FromRequestParts,
    http::{
        HeaderMap, HeaderName,
        header::{IF_MATCH, IF_NONE_MATCH},
        request::Parts,
    },
};

use utoipa::{
    IntoParams,
    openapi::{
        Object, Required, Type,
        path::{Parameter, ParameterIn},
    },
};

use super::parameter;
use crate::output::problem::Problem;

/// Entity tags in a request header.
#[derive(Debug, PartialEq)]
enum Tags {
    /// `*`, which matches any version.
    Any,
    /// Opaque parts of the listed tags.
    These(Vec<String>),
}

impl Tags {
    fn have(&self, version: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|tag| tag == version),
        }
    }
}

/// Describes a header with entity tags.
fn tags_header(name: &str, description: &str, example: &str) -> Vec<Parameter> {
    let tags = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)?$"#;
    let schema = Object::builder()
        .schema_type(Type::String)
        .pattern(Some(tags));
    parameter::header(name, description, schema, example)
}

/// Versions that the request applies to; none: any version.
pub(crate) struct IfMatch(pub(crate) Option<Vec<String>>);

impl IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        tags_header(
            "If-Match",
            "Change the booking only if its `ETag` is one of these; `*` matches any. A change that is already done \
             returns 200 regardless, so that it is safe to retry, and one that the booking's status does not allow \
             returns 409 regardless.",
            "\"PENDING-1795118520123456\"",
        )
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // `If-Match` uses strong comparison: a weak tag never matches.
        Ok(Self(match parse(&parts.headers, &IF_MATCH, |_| None)? {
            None | Some(Tags::Any) => None,
            Some(Tags::These(tags)) => Some(tags),
        }))
    }
}

/// Versions of a show that the request applies to; none: any version.
pub(crate) struct ShowIfMatch(pub(crate) Option<Vec<String>>);

impl IntoParams for ShowIfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        tags_header(
            "If-Match",
            "Change the show only if it has not changed since one of these `ETag`s; `*` matches any. Seats that were \
             sold or came back since do not count as a change.",
            "\"1-38\"",
        )
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ShowIfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let IfMatch(tags) = IfMatch::from_request_parts(parts, state).await?;
        Ok(Self(tags))
    }
}

/// [`ShowIfMatch`] that the request must have, because it overwrites what others may have changed.
pub(crate) struct RequiredShowIfMatch(pub(crate) Option<Vec<String>>);

impl IntoParams for RequiredShowIfMatch {
    fn into_params(parameter_in: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut params = ShowIfMatch::into_params(parameter_in);
        for param in &mut params {
            param.required = Required::True;
        }
        params
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequiredShowIfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if !parts.headers.contains_key(IF_MATCH) {
            return Err(Problem::IfMatchRequired);
        }
        let ShowIfMatch(tags) = ShowIfMatch::from_request_parts(parts, state).await?;
        Ok(Self(tags))
    }
}

/// Versions that the client already has.
pub(crate) struct IfNoneMatch(Option<Tags>);

impl IfNoneMatch {
    /// Returns whether the client has this version.
    pub(crate) fn has(&self, version: &str) -> bool {
        self.0.as_ref().is_some_and(|tags| tags.have(version))
    }
}

/// Description of [`IfNoneMatch`] at the routes of bookings.
pub(crate) struct BookingIfNoneMatch;

impl IntoParams for BookingIfNoneMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        if_none_match("\"PENDING-1795118520123456\"")
    }
}

/// Description of [`IfNoneMatch`] at the routes of shows.
pub(crate) struct ShowIfNoneMatch;

impl IntoParams for ShowIfNoneMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        if_none_match("\"1-38\"")
    }
}

fn if_none_match(example: &str) -> Vec<Parameter> {
    tags_header(
        "If-None-Match",
        "Return 304 if the `ETag` is one of these; `*` matches any.",
        example,
    )
}

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parse(&parts.headers, &IF_NONE_MATCH, Some).map(Self)
    }
}

/// Parses the tags in all headers of this name. `weak` converts a weak tag, or drops it.
fn parse(
    headers: &HeaderMap,
    name: &HeaderName,
    weak: fn(String) -> Option<String>,
) -> Result<Option<Tags>, Problem> {
    let mut tags = None;
    for value in headers.get_all(name) {
        let malformed = || {
            Problem::Malformed(format!(
                "The header {name} is neither * nor a list of entity tags such as \"a\", \"b\"."
            ))
        };
        let mut rest = value.to_str().map_err(|_| malformed())?.trim();
        if rest == "*" {
            return Ok(Some(Tags::Any));
        }
        let tags = tags.get_or_insert_with(Vec::new);
        loop {
            // Empty list elements are ignored.
            rest = rest.trim_start_matches([',', ' ', '\t']);
            if rest.is_empty() {
                break;
            }
            let (is_weak, quoted) = match rest.strip_prefix("W/") {
                Some(quoted) => (true, quoted),
                None => (false, rest),
            };
            let (tag, after) = quoted
                .strip_prefix('"')
                .and_then(|quoted| quoted.split_once('"'))
                .ok_or_else(malformed)?;
            let tag = tag.to_owned();
            tags.extend(if is_weak { weak(tag) } else { Some(tag) });
            rest = after.trim_start();
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(malformed());
            }
        }
    }
    Ok(tags.map(Tags::These))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_parsed_or_refused() {
        let these = |tags: &[&str]| {
            Some(Some(Tags::These(
                tags.iter().map(|&tag| tag.to_owned()).collect(),
            )))
        };
        for (value, expected) in [
            (r#""a""#, these(&["a"])),
            (r#" "a" ,"b,c" "#, these(&["a", "b,c"])),
            (r#"W/"a", "b""#, these(&["b"])),
            ("*", Some(Some(Tags::Any))),
            ("a", None),
            ("", these(&[])),
            (r#""a",, "b","#, these(&["a", "b"])),
            (r#""a"#, None),
            (r#""a" "b""#, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, value.parse().unwrap());
            assert_eq!(
                parse(&headers, &IF_MATCH, |_| None).ok(),
                expected,
                "{value}"
            );
        }
        let absent = parse(&HeaderMap::new(), &IF_MATCH, |_| None);
        assert_eq!(absent.ok(), Some(None));
    }
}
