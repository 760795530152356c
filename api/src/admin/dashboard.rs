//! The dashboard: one page, with all assets embedded in the binary.
//!
//! The page contains no data. It requests the data from the other routes, with the API key of the
//! user.

use std::sync::Arc;

use axum::{
    Router,
    http::{
        HeaderValue,
        header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};

use super::AdminState;
use crate::{input::url::Path, output::problem::Problem};

/// Content security policy of the page: nothing from other origins, no inline scripts or styles.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// An asset of the page.
struct Part {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! part {
    ($kind:expr, $directory:literal, $name:literal) => {
        Part {
            name: $name,
            kind: $kind,
            text: include_str!(concat!("dashboard/", $directory, $name)),
        }
    };
}

const PARTS: [Part; 11] = [
    part!(CSS, "", "page.css"),
    part!(SCRIPT, "", "main.js"),
    part!(SCRIPT, "", "dom.js"),
    part!(SCRIPT, "", "api.js"),
    part!(SCRIPT, "", "charts.js"),
    part!(SCRIPT, "", "sales.js"),
    part!(SCRIPT, "", "queue.js"),
    part!(SCRIPT, "", "jobs.js"),
    part!(SCRIPT, "", "health.js"),
    // As `.ci/vendor` downloads it from its publisher.
    part!(SCRIPT, "vendor/uPlot/", "uPlot.iife.min.js"),
    part!(CSS, "vendor/uPlot/", "uPlot.min.css"),
];

pub(super) fn pages() -> Router<Arc<AdminState>> {
    Router::new()
        .route(
            "/",
            get(async || sent(HTML, include_str!("dashboard/index.html"))),
        )
        .route("/page/{name}", get(part))
}

async fn part(Path(name): Path<String>) -> Result<Response, Problem> {
    let part = PARTS.iter().find(|part| part.name == name);
    part.map(|part| sent(part.kind, part.text))
        .ok_or(Problem::NoSuchRoute)
}

fn sent(kind: &'static str, text: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, POLICY)];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (headers, text).into_response()
}
