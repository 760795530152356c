//! Requests that were answered, counted by their routes.

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
        "Requests that were answered.",
        &["method", "route", "status"],
    )
});

static REQUEST_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    seconds(
        "ticketing_http_request_duration_seconds",
        "From a request's head to its answer's.",
        &["route"],
    )
});

/// The routes of a listener, to count requests by the route and not by the path, of which there is no end.
pub struct Routes {
    routes: Router<Route>,
    /// What no route has.
    elsewhere: Route,
}

/// What is counted of a route.
pub(super) struct Route {
    path: String,
    seconds: Histogram,
    /// Found by method and status without asking for them by their names, which would cost a request a microsecond.
    counters: [[OnceLock<IntCounter>; STATUSES.len()]; METHODS.len() + 1],
}

/// All others are counted together.
const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::HEAD, Method::OPTIONS];

const OTHER: &str = "other";

/// What requests are usually answered with. Others are counted, too, by their names.
const STATUSES: [u16; 17] = [
    200, 201, 202, 304, 400, 401, 403, 404, 405, 409, 412, 413, 415, 422, 429, 500, 503,
];

impl Routes {
    /// Of these paths, as axum writes them.
    pub fn new(paths: impl IntoIterator<Item = String>) -> Self {
        let mut routes = Router::new();
        for path in paths {
            // Paths that contradict each other would have kept axum from starting.
            let _ = routes.insert(path.clone(), Route::new(path));
        }
        Self {
            routes,
            elsewhere: Route::new(OTHER.to_owned()),
        }
    }

    /// The one that a path belongs to.
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

    /// Counts a request that was answered.
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
