//! What this process tells Prometheus, and where.

use std::sync::LazyLock;

use prometheus::{HistogramVec, IntCounterVec};
use shared::{
    jobs::QUEUES,
    metrics::{counters, seconds},
};

/// What the janitor of this process had to put right.
pub static JANITOR_FINDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let finds = counters(
        "ticketing_janitor_finds_total",
        "What the janitor of this process had to put right: overdue holds (sweep), jobs of lost workers (rescue), and such \
         jobs without an attempt left (bury).",
        &["action"],
    );
    // A counter that is there with 0 shows the first find, too.
    for action in ["sweep", "rescue", "bury"] {
        finds.with_label_values(&[action]);
    }
    finds
});

/// Runs of jobs by how they ended.
pub static JOBS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let jobs = counters(
        "ticketing_jobs_total",
        "Runs of jobs in this process: done, snoozed (too early), retried (failed, to be run again), dead.",
        &["queue", "outcome"],
    );
    for queue in QUEUES {
        for outcome in ["done", "snoozed", "retried", "dead"] {
            jobs.with_label_values(&[queue, outcome]);
        }
    }
    jobs
});

/// How long runs of jobs took.
pub static JOB_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let durations = seconds(
        "ticketing_job_duration_seconds",
        "How long runs of jobs took in this process.",
        &["queue"],
    );
    for queue in QUEUES {
        durations.with_label_values(&[queue]);
    }
    durations
});

/// What begins so, an api tells that is in the same process.
pub(crate) const OF_APIS: [&str; 6] = [
    "ticketing_http_",
    "ticketing_refusals_",
    "ticketing_batch_",
    "ticketing_requests_waiting",
    "ticketing_queue_",
    "ticketing_database_looked_at",
];

/// Makes all of them be there, with 0.
pub(crate) fn begin() {
    LazyLock::force(&JANITOR_FINDS);
    LazyLock::force(&JOBS);
    LazyLock::force(&JOB_SECONDS);
}
