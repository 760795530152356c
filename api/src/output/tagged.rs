//! Resources with an entity tag (RFC 9110, section 8.8.3).

use axum::{
    http::{HeaderName, StatusCode, header::ETAG},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::json;

/// A resource with its entity tag.
pub(crate) struct Tagged<T> {
    version: String,
    resource: T,
}

impl<T> Tagged<T> {
    /// Tags a representation of a resource with the resource's version.
    pub(crate) fn new(version: String, resource: T) -> Self {
        Self { version, resource }
    }
}

impl<T: Serialize> Tagged<T> {
    /// Returns the resource, or 304 without a body if the client `has` this version.
    pub(crate) fn unless(self, has: impl FnOnce(&str) -> bool) -> Response {
        if has(&self.version) {
            return (StatusCode::NOT_MODIFIED, self.etag()).into_response();
        }
        self.into_response()
    }

    fn etag(&self) -> [(HeaderName, String); 1] {
        [(ETAG, format!("\"{}\"", self.version))]
    }
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        (self.etag(), json::response(&self.resource)).into_response()
    }
}
