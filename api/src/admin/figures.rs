//! `/metrics`

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

use super::{AdminState, watch::Look};
use crate::{
    access::{Administer, Caller},
    problem::Problem,
};

/// What all apis see alike, from the last look at the queue.
struct Gauges {
    jobs: IntGaugeVec,
    due_lag: GaugeVec,
    paused: IntGaugeVec,
    overdue_holds: IntGauge,
    longest_overdue: Gauge,
    holds_ending_soon: IntGauge,
    oldest_transaction: Gauge,
    looked_at: Gauge,
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
            "How long the job that is due for the longest time has waited; 0 when none is due.",
            &["queue"]
        )
        .expect(once),
        paused: register_int_gauge_vec!(
            "ticketing_queue_paused",
            "1 while the queue is paused.",
            &["queue"]
        )
        .expect(once),
        overdue_holds: register_int_gauge!(
            "ticketing_overdue_holds",
            "Holds in the database whose deadline is over and whose seats are not back, counted up to 10,000."
        )
        .expect(once),
        longest_overdue: register_gauge!(
            "ticketing_longest_overdue_seconds",
            "For how long the oldest overdue hold is overdue; 0 when there is none."
        )
        .expect(once),
        holds_ending_soon: register_int_gauge!(
            "ticketing_holds_ending_soon",
            "Holds in the database that run out within 30 s, counted up to 10,000."
        )
        .expect(once),
        oldest_transaction: register_gauge!(
            "ticketing_oldest_transaction_seconds",
            "How long the oldest open transaction of the database has been open; dead rows are kept for it."
        )
        .expect(once),
        looked_at: register_gauge!(
            "ticketing_database_looked_at_timestamp_seconds",
            "When the database was last asked for what the ticketing_queue_ and _holds figures tell."
        )
        .expect(once),
    }
});

impl Gauges {
    fn set(&self, look: &Look) {
        // A queue that is gone is not told any more.
        self.jobs.reset();
        self.due_lag.reset();
        self.paused.reset();
        for queue in &look.queues {
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
        self.overdue_holds.set(look.pulse.overdue_holds);
        self.longest_overdue.set(look.pulse.longest_overdue_seconds);
        self.holds_ending_soon.set(look.pulse.holds_ending_soon);
        let oldest = look.oldest_transaction.as_ref();
        self.oldest_transaction
            .set(oldest.map_or(0.0, |oldest| oldest.seconds));
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact")]
        self.looked_at.set(look.at.timestamp() as f64);
    }
}

pub(super) async fn metrics(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
) -> Result<Response, Problem> {
    if let Some(look) = state.watch.last() {
        GAUGES.set(&look);
    }
    observe_pool("api", &state.api_pool);
    observe_pool("admin", &state.database.pool);
    // Of `ticketing up`, which has a worker in the same process, one listener tells all.
    let text = metrics::render(&[], &["api", "admin", "worker"])
        .map_err(|error| Problem::Panicked(error.to_string()))?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
