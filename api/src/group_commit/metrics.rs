//! Metrics for the transactions of one kind.

use prometheus::{Histogram, IntGauge};
use tokio::time::Instant;

use crate::metrics::{BATCH_SECONDS, BATCH_SIZE, WAITING};

#[derive(Clone)]
pub(super) struct BatchMetrics {
    size: Histogram,
    seconds: Histogram,
    /// Number of requests that wait for a transaction.
    pub(super) waiting: IntGauge,
}

impl BatchMetrics {
    pub(super) fn of(kind: &'static str) -> Self {
        Self {
            size: BATCH_SIZE.with_label_values(&[kind]),
            seconds: BATCH_SECONDS.with_label_values(&[kind]),
            waiting: WAITING.with_label_values(&[kind]),
        }
    }

    pub(super) fn observe(&self, members: usize, began: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "at most a thousand")]
        self.size.observe(members as f64);
        self.seconds.observe(began.elapsed().as_secs_f64());
    }
}
