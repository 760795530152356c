//! Queue of the requests that wait for a lane.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use shared::{postgres::Session, telemetry::traces};
use tokio::{
    sync::{Mutex, mpsc},
    time::timeout,
};
use tracing::Span;

use super::{kind::Kind, member::Member, metrics::BatchMetrics};

/// Limits a lane to one transaction at a time, without reordering requests.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) running: Mutex<()>,
    /// Number of requests not yet in a transaction. Only the holder of `running` takes any of them.
    pub(super) waiting: AtomicUsize,
    /// Whether the lane's last transaction had several requests, so that more are about to arrive.
    pub(super) is_busy: AtomicBool,
}

/// Requests that wait for a lane, in order of arrival.
pub(super) struct Arrivals<K: Kind> {
    pub(super) queue: mpsc::UnboundedReceiver<Member<K>>,
    /// Requests ahead of `queue`, such as those that the previous batch skipped; served first.
    pub(super) front: VecDeque<Member<K>>,
    /// Requests that this batch skipped because they do not fit; the next batch starts with them.
    pub(super) passed: VecDeque<Member<K>>,
    pub(super) turn: Arc<Turn>,
    pub(super) metrics: BatchMetrics,
}

/// Idle time after which the lane returns its connection to the pool.
const RESTS_AFTER: Duration = Duration::from_millis(100);

impl<K: Kind> Arrivals<K> {
    /// Waits for a request. Returns false if none is left and all senders are gone.
    pub(super) async fn wait(&mut self, session: &mut Session) -> bool {
        if self.front.is_empty() {
            let first = match timeout(RESTS_AFTER, self.queue.recv()).await {
                Ok(first) => first,
                Err(_) => {
                    session.rest().await;
                    self.queue.recv().await
                }
            };
            self.front.extend(first);
        }
        !self.front.is_empty()
    }

    /// Returns the key of the first request whose caller still waits.
    pub(super) fn key(&self) -> Option<i64> {
        let first = self.front.iter().find(|member| !member.waiter.is_gone());
        first.map(|first| first.waiter.key)
    }

    /// Returns a span for a transaction, in the trace of the first request.
    pub(super) fn begin_span(&self) -> Span {
        match self.front.front() {
            Some(first) if traces::are_made() => {
                tracing::info_span!(parent: &first.waiter.span, "transaction", kind = K::NAME)
            }
            _ => Span::none(),
        }
    }

    /// Returns the next request that fits. Drops requests whose callers have gone away.
    pub(super) fn next_if(&mut self, fits: &dyn Fn(&Member<K>) -> bool) -> Option<Member<K>> {
        loop {
            let next = self
                .front
                .pop_front()
                .or_else(|| self.queue.try_recv().ok())?;
            let is_gone = next.waiter.is_gone();
            if !is_gone && !fits(&next) {
                self.passed.push_back(next);
                continue;
            }
            self.turn.waiting.fetch_sub(1, SeqCst);
            self.metrics.waiting.dec();
            if !is_gone {
                return Some(next);
            }
        }
    }

    /// Moves the requests that a batch skipped back to the front.
    pub(super) fn go_back(&mut self) {
        self.passed.append(&mut self.front);
        mem::swap(&mut self.passed, &mut self.front);
    }
}
