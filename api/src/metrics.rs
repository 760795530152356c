//! What this process tells Prometheus of the requests that it served.

use std::{sync::LazyLock, time::Duration};

use axum::http::{Method, StatusCode};
use matchit::Router;
use prometheus::{
    Histogram, HistogramVec, IntCounterVec, IntGaugeVec, core::Collector, proto::MetricFamily,
    register_histogram_vec, register_int_gauge_vec,
};
use shared::metrics::{counters, seconds};

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

/// Requests that the state of things did not allow, by the problem's type.
pub(crate) static REFUSALS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "ticketing_refusals_total",
        "Requests that were refused because of the state of shows and bookings.",
        &["problem"],
    )
});

/// How many requests of each kind shared a transaction.
pub(crate) static BATCH_SIZE: LazyLock<HistogramVec> = LazyLock::new(|| {
    register_histogram_vec!(
        "ticketing_batch_size",
        "Requests that shared a transaction.",
        &["kind"],
        vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]
    )
    .expect("each name is registered once")
});

/// How many requests of each kind wait for a transaction.
pub(crate) static WAITING: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register_int_gauge_vec!(
        "ticketing_requests_waiting",
        "Requests that came and are in no transaction yet.",
        &["kind"]
    )
    .expect("each name is registered once")
});

/// How long each kind of shared transaction took.
pub(crate) static BATCH_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    seconds(
        "ticketing_batch_duration_seconds",
        "How long transactions took, their locks and their COMMIT included.",
        &["kind"],
    )
});

/// All refusals of this process.
pub(crate) fn refusals() -> u64 {
    let counted = REFUSALS.collect();
    counted
        .iter()
        .flat_map(MetricFamily::get_metric)
        .map(|metric| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it counts"
            )]
            let count = metric.get_counter().get_value() as u64;
            count
        })
        .sum()
}

/// The routes of a listener, to count requests by the route and not by the path, of which there is no end.
pub(crate) struct Routes(Router<Route>);

struct Route {
    path: String,
    seconds: Histogram,
}

/// What no route has.
const ELSEWHERE: &str = "other";

impl Routes {
    /// Of these paths, as axum writes them.
    pub(crate) fn new(paths: impl IntoIterator<Item = String>) -> Self {
        let mut routes = Router::new();
        for path in paths {
            let seconds = REQUEST_SECONDS.with_label_values(&[&path]);
            // Paths that contradict each other would have kept axum from starting.
            let _ = routes.insert(path.clone(), Route { path, seconds });
        }
        Self(routes)
    }

    /// Counts a request that was answered.
    pub(crate) fn count(&self, method: &Method, path: &str, status: StatusCode, took: Duration) {
        let route = self.0.at(path).ok().map(|found| found.value);
        let known = [Method::GET, Method::POST, Method::HEAD, Method::OPTIONS];
        let method = if known.contains(method) {
            method.as_str()
        } else {
            ELSEWHERE
        };
        let path = route.map_or(ELSEWHERE, |route| &route.path);
        REQUESTS
            .with_label_values(&[method, path, status.as_str()])
            .inc();
        if let Some(route) = route {
            route.seconds.observe(took.as_secs_f64());
        }
    }
}
