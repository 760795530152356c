//! The dashboard: one page whose parts are all in this program. It holds no data: it asks for it, with the key of whoever
//! looks at it.

use std::sync::Arc;

use axum::{
    Router,
    http::{
        HeaderValue,
        header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};

use super::AdminState;

/// The page takes everything from here and nothing else; nothing on it is a script or a style of its own.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
);

pub(super) fn pages() -> Router<Arc<AdminState>> {
    Router::new()
        .route("/", page("text/html", include_str!("page/index.html")))
        .route("/page.css", page("text/css", include_str!("page/page.css")))
        .route(
            "/page.js",
            page("text/javascript", include_str!("page/page.js")),
        )
        .route(
            "/chart.js",
            page("text/javascript", include_str!("page/chart.js")),
        )
}

fn page(kind: &'static str, text: &'static str) -> MethodRouter<Arc<AdminState>> {
    get(async move || -> Response {
        let kind = HeaderValue::from_str(&format!("{kind}; charset=utf-8"));
        let kind = kind.unwrap_or(HeaderValue::from_static("text/plain"));
        let headers = [(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY)];
        (headers, text).into_response()
    })
}
