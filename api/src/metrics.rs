//! Prometheus metrics of the requests that this process served.

use std::sync::LazyLock;

use prometheus::{
    HistogramVec, IntCounterVec, IntGaugeVec, core::Collector, proto::MetricFamily,
    register_histogram_vec, register_int_gauge_vec,
};
use shared::metrics::{counters, seconds};

/// Requests refused because of the state of shows and bookings, by problem type.
pub(crate) static REFUSALS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "ticketing_refusals_total",
        "Requests refused because of the state of shows and bookings.",
        &["problem"],
    )
});

/// Number of requests in a transaction, by kind.
pub(crate) static BATCH_SIZE: LazyLock<HistogramVec> = LazyLock::new(|| {
    register_histogram_vec!(
        "ticketing_batch_size",
        "Number of requests in a transaction.",
        &["kind"],
        vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]
    )
    .expect("each name is registered once")
});

/// Number of requests that wait for a transaction, by kind.
pub(crate) static WAITING: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register_int_gauge_vec!(
        "ticketing_requests_waiting",
        "Requests that wait for a transaction.",
        &["kind"]
    )
    .expect("each name is registered once")
});

/// Duration of transactions, by kind.
pub(crate) static BATCH_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    seconds(
        "ticketing_batch_duration_seconds",
        "Duration of transactions in seconds, including locks and COMMIT.",
        &["kind"],
    )
});

/// Returns the number of all refusals of this process.
pub(crate) fn refusals() -> u64 {
    let counted = REFUSALS.collect();
    counted
        .iter()
        .flat_map(MetricFamily::get_metric)
        .map(|metric| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a counter is a whole number from 0"
            )]
            let count = metric.get_counter().get_value() as u64;
            count
        })
        .sum()
}
