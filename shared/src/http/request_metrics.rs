//! Metrics for HTTP requests, by route.

use std::{
    sync::{LazyLock, OnceLock},
    time::Duration,
};

use axum::http::{Method, StatusCode};
use matchit::Router;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use crate::metrics::{counters, seconds};

static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "ticketing_http_requests_total",
        "HTTP requests answered.",
        &["method", "route", "status"],
    )
});

static REQUEST_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    seconds(
        "ticketing_http_request_duration_seconds",
        "Time from the head of a request to the head of its response, in seconds.",
        &["route"],
    )
});

/// Routes of a listener, with their metrics.
///
/// Requests are counted by route and not by path, because the number of paths is unbounded.
pub struct Routes {
    routes: Router<Route>,
    /// Metrics for requests that match no route.
    elsewhere: Route,
}

/// Metrics for one route.
pub(super) struct Route {
    path: String,
    seconds: Histogram,
    /// Counters by method and status.
    ///
    /// They are indexed, because a lookup by labels would cost a request a microsecond.
    counters: [[OnceLock<IntCounter>; STATUSES.len()]; METHODS.len() + 1],
}

/// Methods with counters of their own. All other methods are counted together.
const METHODS: [Method; 5] = [
    Method::GET,
    Method::POST,
    Method::PATCH,
    Method::HEAD,
    Method::OPTIONS,
];

const OTHER: &str = "other";

/// Common status codes, whose counters are indexed. Other codes are counted too, by their labels.
const STATUSES: [u16; 18] = [
    200, 201, 202, 304, 400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 428, 429, 500, 503,
];

impl Routes {
    /// Creates the metrics for these paths, which have axum's syntax.
    pub fn new(paths: impl IntoIterator<Item = String>) -> Self {
        let mut routes = Router::new();
        for path in paths {
            // Only conflicting paths can't be inserted, and these would have kept axum from
            // starting.
            let _ = routes.insert(path.clone(), Route::new(path));
        }
        Self {
            routes,
            elsewhere: Route::new(OTHER.to_owned()),
        }
    }

    /// Returns the route that matches a path.
    pub(super) fn find(&self, path: &str) -> &Route {
        let found = self.routes.at(path);
        found.map_or(&self.elsewhere, |found| found.value)
    }
}

impl Route {
    fn new(path: String) -> Self {
        Self {
            seconds: REQUEST_SECONDS.with_label_values(&[&path]),
            counters: Default::default(),
            path,
        }
    }

    /// Counts an answered request.
    pub(super) fn count(&self, method: &Method, status: StatusCode, took: Duration) {
        let known = METHODS.iter().position(|known| known == method);
        let by_name = || {
            let method = known.map_or(OTHER, |at| METHODS[at].as_str());
            REQUESTS.with_label_values(&[method, &self.path, status.as_str()])
        };
        let of_method = &self.counters[known.unwrap_or(METHODS.len())];
        match STATUSES.iter().position(|usual| *usual == status.as_u16()) {
            Some(at) => of_method[at].get_or_init(by_name).inc(),
            None => by_name().inc(),
        }
        self.seconds.observe(took.as_secs_f64());
    }
}
