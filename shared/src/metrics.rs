//! Prometheus metrics of this process, in the text format.
//!
//! Each process counts its own events, from its start. Labels have few values, all of them written
//! in this program. Metrics of shared state, such as the depth of a queue, are reported by every
//! process alike: aggregate them with the maximum, not the sum.

use std::sync::LazyLock;

use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, TextEncoder,
    register_histogram, register_histogram_vec, register_int_counter_vec, register_int_gauge_vec,
};
use sqlx::PgPool;

use crate::telemetry::log_writer;

/// Registers a counter for each combination of label values.
///
/// # Panics
///
/// Panics if a metric with this name is registered already.
#[must_use]
pub fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register_int_counter_vec!(name, help, labels).expect("each name is registered once")
}

/// Registers a histogram of seconds for each combination of label values.
///
/// # Panics
///
/// Panics if a metric with this name is registered already.
#[must_use]
pub fn seconds(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let buckets = vec![
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
    ];
    register_histogram_vec!(name, help, labels, buckets).expect("each name is registered once")
}

/// Counters of changes to bookings, by outcome.
pub struct Bookings {
    /// Holds that were created.
    pub reserved: IntCounter,
    /// Holds that were confirmed.
    pub confirmed: IntCounter,
    /// Bookings that their clients cancelled.
    pub cancelled: IntCounter,
    /// Holds that were extended.
    pub extended: IntCounter,
    /// Bookings whose seats, or some of them, were passed on to a new one.
    pub transferred: IntCounter,
    /// Holds that expired.
    pub failed: IntCounter,
}

/// Changes to bookings in transactions of this process.
pub static BOOKINGS: LazyLock<Bookings> = LazyLock::new(|| {
    let all = counters(
        "ticketing_bookings_total",
        "Changes to bookings by this process, by outcome.",
        &["outcome"],
    );
    let of = |outcome: &str| all.with_label_values(&[outcome]);
    Bookings {
        reserved: of("reserved"),
        confirmed: of("confirmed"),
        cancelled: of("cancelled"),
        extended: of("extended"),
        transferred: of("transferred"),
        failed: of("failed"),
    }
});

/// Time from the deadline of a hold until a transaction of this process failed it, in seconds.
pub static EXPIRY_LAG: LazyLock<Histogram> = LazyLock::new(|| {
    register_histogram!(
        "ticketing_expiry_lag_seconds",
        "Time from a hold's deadline until this process failed it, in seconds.",
        vec![
            0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0
        ]
    )
    .expect("each name is registered once")
});

const CONNECTIONS_NAME: &str = "ticketing_database_connections";

static CONNECTIONS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register_int_gauge_vec!(
        CONNECTIONS_NAME,
        "Database connections: idle, busy, and the maximum (max).",
        &["pool", "state"]
    )
    .expect("each name is registered once")
});

/// Records the usage of a connection pool.
pub fn observe_pool(name: &str, pool: &PgPool) {
    let idle = pool.num_idle();
    let open = usize::try_from(pool.size()).unwrap_or(usize::MAX);
    let max = usize::try_from(pool.options().get_max_connections()).unwrap_or(usize::MAX);
    for (state, count) in [
        ("idle", idle),
        ("busy", open.saturating_sub(idle)),
        ("max", max),
    ] {
        CONNECTIONS
            .with_label_values(&[name, state])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Content type of the text that [`render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders the metrics of this process, except those whose names begin with one of `without`.
///
/// Of the connection pools, only those in `pools` are included: in `ticketing up`, api and worker
/// share a process and a registry.
///
/// # Errors
///
/// Fails if two metrics contradict each other.
pub fn render(without: &[&str], pools: &[&str]) -> Result<Vec<u8>, prometheus::Error> {
    // Creates these metrics, so that they are reported as 0 before the first event.
    LazyLock::force(&BOOKINGS);
    LazyLock::force(&EXPIRY_LAG);
    LazyLock::force(&log_writer::DROPPED);
    let mut families = prometheus::gather();
    families.retain(|family| {
        !without
            .iter()
            .any(|begins| family.name().starts_with(begins))
    });
    for family in &mut families {
        if family.name() == CONNECTIONS_NAME {
            let mut of_pools = family.take_metric();
            of_pools.retain(|metric| {
                let labels = metric.get_label();
                labels.iter().any(|label| pools.contains(&label.value()))
            });
            family.set_metric(of_pools);
        }
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(text)
}
