//! What this process tells Prometheus of the requests that it served.

use std::sync::LazyLock;

use prometheus::{
    HistogramVec, IntCounterVec, IntGaugeVec, core::Collector, proto::MetricFamily,
    register_histogram_vec, register_int_gauge_vec,
};
use shared::metrics::{counters, seconds};

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
