//! Problem details of RFC 9457: the response to a request that was refused or failed.

use std::borrow::Cow;

use axum::{
    Json,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// Problem details, and further headers of the response.
#[derive(Debug)]
pub(crate) struct ProblemDetails {
    pub(crate) status: StatusCode,
    /// Last part of the problem's `type`. Never changes.
    pub(crate) kind: &'static str,
    title: &'static str,
    /// Explanation of this occurrence, for people. It reveals no internals.
    detail: Cow<'static, str>,
    /// Members of this occurrence that a program can act on.
    facts: Value,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ProblemDetails {
    /// Creates problem details without facts and further headers.
    pub(crate) fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            kind,
            title,
            detail: detail.into(),
            facts: json!({}),
            headers: Vec::new(),
        }
    }

    /// Adds the facts, as a JSON object.
    pub(crate) fn with(self, facts: Value) -> Self {
        Self { facts, ..self }
    }

    /// Adds the header `Retry-After`.
    ///
    /// Not if the outcome is unknown: a client that retries by itself would do it twice.
    pub(crate) fn retry_after(self, seconds: u16) -> Self {
        self.header(RETRY_AFTER, seconds.into())
    }

    /// Adds the header `WWW-Authenticate` with this challenge (RFC 6750).
    pub(crate) fn challenge(self, challenge: &str) -> Self {
        match HeaderValue::from_str(challenge) {
            Ok(challenge) => self.header(WWW_AUTHENTICATE, challenge),
            Err(_) => self,
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Returns the response body as a JSON value, whose members have no order.
    pub(crate) fn document(&self) -> Value {
        json!(self)
    }

    fn body(&self) -> Body<'_> {
        Body {
            r#type: format!("/problems/{}", self.kind),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            facts: &self.facts,
        }
    }
}

/// The response body, with its members in the order in which people read them.
#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    facts: &'a Value,
}

/// Serializes the response body.
impl Serialize for ProblemDetails {
    fn serialize<S: Serializer>(&self, encoder: S) -> Result<S::Ok, S::Error> {
        self.body().serialize(encoder)
    }
}

impl IntoResponse for ProblemDetails {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.extend(self.headers);
        response
    }
}
