//! Handler of `/metrics`.

use std::sync::{Arc, LazyLock};

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use prometheus::{
    Gauge, GaugeVec, IntGauge, IntGaugeVec, register_gauge, register_gauge_vec, register_int_gauge,
    register_int_gauge_vec,
};
use shared::metrics::{self, observe_pool};

use super::{poll::Snapshot, state::AdminState};
use crate::{
    input::caller::{Administer, Caller},
    output::problem::Problem,
};

/// Gauges from the last poll of the database, which every api process reports alike.
struct Gauges {
    jobs: IntGaugeVec,
    due_lag: GaugeVec,
    paused: IntGaugeVec,
    overdue_holds: IntGauge,
    longest_overdue: Gauge,
    holds_ending_soon: IntGauge,
    oldest_transaction: Gauge,
    polled_at: Gauge,
}

static GAUGES: LazyLock<Gauges> = LazyLock::new(|| {
    let once = "each name is registered once";
    Gauges {
        jobs: register_int_gauge_vec!(
            "ticketing_queue_jobs",
            "Jobs in the database by state, counted up to 100,000.",
            &["queue", "state"]
        )
        .expect(once),
        due_lag: register_gauge_vec!(
            "ticketing_queue_due_lag_seconds",
            "Time that the oldest due job has waited, in seconds; 0 if none is due.",
            &["queue"]
        )
        .expect(once),
        paused: register_int_gauge_vec!(
            "ticketing_queue_paused",
            "1 if the queue is paused, else 0.",
            &["queue"]
        )
        .expect(once),
        overdue_holds: register_int_gauge!(
            "ticketing_overdue_holds",
            "Holds past their deadline whose seats are not back on sale, counted up to 10,000."
        )
        .expect(once),
        longest_overdue: register_gauge!(
            "ticketing_longest_overdue_seconds",
            "Time since the deadline of the oldest overdue hold, in seconds; 0 if there is none."
        )
        .expect(once),
        holds_ending_soon: register_int_gauge!(
            "ticketing_holds_ending_soon",
            "Holds that expire within 30 s, counted up to 10,000."
        )
        .expect(once),
        oldest_transaction: register_gauge!(
            "ticketing_oldest_transaction_seconds",
            "Age of the oldest open transaction, in seconds; dead rows are kept for it."
        )
        .expect(once),
        polled_at: register_gauge!(
            "ticketing_database_looked_at_timestamp_seconds",
            "Unix time of the last successful poll of the database for metrics of queues and holds."
        )
        .expect(once),
    }
});

impl Gauges {
    fn set(&self, poll: &Snapshot) {
        // Stops reporting queues that no longer exist.
        self.jobs.reset();
        self.due_lag.reset();
        self.paused.reset();
        for queue in &poll.queues {
            for (state, count) in &queue.depth {
                self.jobs
                    .with_label_values(&[queue.name.as_str(), state.name()])
                    .set(*count);
            }
            let name = [queue.name.as_str()];
            self.due_lag
                .with_label_values(&name)
                .set(queue.due_lag_seconds);
            self.paused
                .with_label_values(&name)
                .set(queue.paused.is_some().into());
        }
        self.overdue_holds.set(poll.pulse.overdue_holds);
        self.longest_overdue.set(poll.pulse.longest_overdue_seconds);
        self.holds_ending_soon.set(poll.pulse.holds_ending_soon);
        let oldest = poll.oldest_transaction.as_ref();
        self.oldest_transaction
            .set(oldest.map_or(0.0, |oldest| oldest.seconds));
        #[expect(clippy::cast_precision_loss, reason = "Unix seconds are exact in f64")]
        self.polled_at.set(poll.at.timestamp() as f64);
    }
}

pub(super) async fn metrics(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
) -> Result<Response, Problem> {
    if let Some(poll) = state.poller.last() {
        GAUGES.set(&poll);
    }
    observe_pool("api", &state.api_pool);
    observe_pool("admin", &state.database.pool);
    // In `ticketing up`, api and worker share a process: this listener reports the metrics of both.
    let text = metrics::render(&[], &["api", "admin", "worker"])
        .map_err(|error| Problem::Bug(error.to_string()))?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
