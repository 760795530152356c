//! What this process tells Prometheus, and where.

use std::sync::LazyLock;

use prometheus::{HistogramVec, IntCounterVec};
use shared::metrics::{counters, seconds};

/// What the janitor of this process had to put right.
pub static JANITOR_FINDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "ticketing_janitor_finds_total",
        "What the janitor of this process had to put right: overdue holds (sweep), jobs of lost workers (rescue), and such \
         jobs without an attempt left (bury).",
        &["action"],
    )
});

/// Runs of jobs by how they ended.
pub static JOBS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters(
        "ticketing_jobs_total",
        "Runs of jobs in this process: done, snoozed (too early), retried (failed, to be run again), dead.",
        &["queue", "outcome"],
    )
});

/// How long runs of jobs took.
pub static JOB_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    seconds(
        "ticketing_job_duration_seconds",
        "How long runs of jobs took in this process.",
        &["queue"],
    )
});
