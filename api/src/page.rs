//! Lists in pages: a plain array, and a `Link` to the next page (RFC 8288) while there is one.

use axum::{
    Json,
    http::header::LINK,
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// The default length of a page.
pub(crate) const DEFAULT_LIMIT: i64 = 100;

/// A page of a list that is ordered by id.
pub(crate) struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of at most `limit` of the items, of which one more should have been asked for: if it is
    /// there, a next page exists, and `next_query` makes its query from the last id of this one.
    pub(crate) fn new<Q: Serialize>(
        mut items: Vec<T>,
        limit: i64,
        path: &str,
        next_query: impl FnOnce(&T) -> Q,
    ) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items
            .last()
            .filter(|_| more)
            .and_then(|last| serde_urlencoded::to_string(next_query(last)).ok())
            .map(|query| format!("<{path}?{query}>; rel=\"next\""));
        Self { items, next }
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let link = self.next.map(|next| [(LINK, next)]);
        (link, Json(self.items)).into_response()
    }
}
