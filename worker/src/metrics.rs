//! Prometheus metrics of the worker.

use std::sync::LazyLock;

use prometheus::{HistogramVec, IntCounterVec};
use shared::{
    jobs::QUEUES,
    metrics::{counters, seconds},
};

/// Failures that the janitor of this process repaired.
pub static JANITOR_FINDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let finds = counters(
        "ticketing_janitor_finds_total",
        "Failures that the janitor of this process repaired: overdue holds (sweep), jobs of lost \
         workers (rescue), and jobs of lost workers without an attempt left (bury).",
        &["action"],
    );
    // A counter that starts at 0 shows the first find too.
    for action in ["sweep", "rescue", "bury"] {
        finds.with_label_values(&[action]);
    }
    finds
});

/// Job runs by outcome.
pub static JOBS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let jobs = counters(
        "ticketing_jobs_total",
        "Job runs in this process by outcome: done, snoozed (too early), retried (failed, will be \
         run again), dead.",
        &["queue", "outcome"],
    );
    for queue in QUEUES {
        for outcome in ["done", "snoozed", "retried", "dead"] {
            jobs.with_label_values(&[queue, outcome]);
        }
    }
    jobs
});

/// Durations of job runs.
pub static JOB_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let durations = seconds(
        "ticketing_job_duration_seconds",
        "Duration of job runs in this process, in seconds.",
        &["queue"],
    );
    for queue in QUEUES {
        durations.with_label_values(&[queue]);
    }
    durations
});

/// Prefixes of the metrics that an api in the same process reports.
pub(crate) const API_METRIC_PREFIXES: [&str; 6] = [
    "ticketing_http_",
    "ticketing_refusals_",
    "ticketing_batch_",
    "ticketing_requests_waiting",
    "ticketing_queue_",
    "ticketing_database_looked_at",
];

/// Creates all metrics, so that they are reported as 0 before the first event.
pub(crate) fn begin() {
    LazyLock::force(&JANITOR_FINDS);
    LazyLock::force(&JOBS);
    LazyLock::force(&JOB_SECONDS);
}
