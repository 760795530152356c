//! Figures for machines to watch, in Prometheus's text format.
//!
//! Each process counts for itself and from its start; labels have few values, all of them written in this program. What all
//! processes see alike, such as the depth of a queue, each of them tells: take the maximum, not the sum.

use std::sync::LazyLock;

use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, TextEncoder,
    register_histogram, register_histogram_vec, register_int_counter_vec, register_int_gauge_vec,
};
use sqlx::PgPool;

use crate::telemetry::log_writer;

/// A counter for each value of one label.
///
/// # Panics
///
/// When there is one of this name already.
#[must_use]
pub fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register_int_counter_vec!(name, help, labels).expect("each name is registered once")
}

/// A histogram of seconds for each value of some labels.
///
/// # Panics
///
/// When there is one of this name already.
#[must_use]
pub fn seconds(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let buckets = vec![
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0,
    ];
    register_histogram_vec!(name, help, labels, buckets).expect("each name is registered once")
}

/// What became of bookings.
pub struct Bookings {
    /// Holds that were made.
    pub reserved: IntCounter,
    /// Holds that were sold.
    pub confirmed: IntCounter,
    /// Bookings that their clients gave up.
    pub cancelled: IntCounter,
    /// Holds that were made to last longer.
    pub extended: IntCounter,
    /// Holds that ran out.
    pub failed: IntCounter,
}

/// What became of bookings in transactions of this process.
pub static BOOKINGS: LazyLock<Bookings> = LazyLock::new(|| {
    let all = counters(
        "ticketing_bookings_total",
        "Bookings by what this process made of them.",
        &["outcome"],
    );
    let of = |outcome: &str| all.with_label_values(&[outcome]);
    Bookings {
        reserved: of("reserved"),
        confirmed: of("confirmed"),
        cancelled: of("cancelled"),
        extended: of("extended"),
        failed: of("failed"),
    }
});

/// How long after their deadlines holds failed in transactions of this process, in seconds.
pub static EXPIRY_LAG: LazyLock<Histogram> = LazyLock::new(|| {
    register_histogram!(
        "ticketing_expiry_lag_seconds",
        "How long after their deadlines this process failed holds.",
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
        "Connections to the database: idle, busy, and how many there may be (max).",
        &["pool", "state"]
    )
    .expect("each name is registered once")
});

/// Notes how much of a pool is used.
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

/// The type of what [`render`] makes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics of this process, except those whose names begin with one of `without`, and of database pools only those in `pools`. In
/// `ticketing up`, api and worker share a process and a registry.
///
/// # Errors
///
/// When two of them contradict each other.
pub fn render(without: &[&str], pools: &[&str]) -> Result<Vec<u8>, prometheus::Error> {
    // So that they are there, with 0, before something happens.
    LazyLock::force(&BOOKINGS);
    LazyLock::force(&EXPIRY_LAG);
    LazyLock::force(&log_writer::DROPPED);
    let mut figures = prometheus::gather();
    figures.retain(|family| {
        !without
            .iter()
            .any(|begins| family.name().starts_with(begins))
    });
    for family in &mut figures {
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
    TextEncoder::new().encode(&figures, &mut text)?;
    Ok(text)
}
