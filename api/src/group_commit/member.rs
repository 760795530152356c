//! Members of a batch: a request, and the caller that waits for its answer.

use std::{iter, sync::Arc};

use shared::{postgres, telemetry::traces};
use tokio::{runtime::Handle, sync::oneshot};
use tracing::Span;

use super::kind::Kind;

/// Reason that a request got no answer.
#[derive(Debug)]
pub(crate) enum SubmitError {
    /// Too many requests are waiting. Nothing was done.
    Overloaded,
    /// The request was not answered before its deadline. The outcome is unknown.
    TimedOut,
    /// The transaction of the request failed, perhaps shared with other requests.
    Failed(Arc<postgres::Error>),
    /// The transaction of the request panicked, or the lane has stopped.
    Lost,
}

/// Result of a request of this kind.
pub(super) type Answered<K> = Result<<K as Kind>::Answer, SubmitError>;

/// A request, and the caller that waits for its answer.
pub(super) struct Member<K: Kind> {
    pub(super) request: K::Request,
    pub(super) waiter: Waiter<K>,
}

pub(super) struct Waiter<K: Kind> {
    pub(super) key: i64,
    /// Span of the request; `Span::none()` if traces are off.
    pub(super) span: Span,
    pub(super) answer: oneshot::Sender<Answered<K>>,
}

impl<K: Kind> Member<K> {
    /// Returns a member for a caller in the current span, and the receiver of its answer.
    pub(super) fn new(key: i64, request: K::Request) -> (Self, oneshot::Receiver<Answered<K>>) {
        let (answer, answered) = oneshot::channel();
        let span = if traces::are_made() {
            Span::current()
        } else {
            Span::none()
        };
        let waiter = Waiter { key, span, answer };
        (Self { request, waiter }, answered)
    }

    /// Splits the request from its caller, and links the spans of caller and transaction both ways.
    pub(super) fn join(self, span: &Span) -> (K::Request, Waiter<K>) {
        span.follows_from(&self.waiter.span);
        self.waiter.span.follows_from(span);
        (self.request, self.waiter)
    }

    pub(super) fn put_together(requests: Vec<K::Request>, waiters: Vec<Waiter<K>>) -> Vec<Self> {
        iter::zip(requests, waiters)
            .map(|(request, waiter)| Self { request, waiter })
            .collect()
    }
}

impl<K: Kind> Waiter<K> {
    /// Returns whether the caller no longer waits for its answer.
    pub(super) fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }
}

/// Sends each caller its answer, or the error to all of them. Callers that went away are ignored.
pub(super) fn answer<K: Kind>(
    waiters: Vec<Waiter<K>>,
    result: Result<Vec<Answered<K>>, postgres::Error>,
    callers_thread: &Handle,
) {
    let answered = result.unwrap_or_else(|error| {
        let error = Arc::new(error);
        let failed = |_: &Waiter<K>| Err(SubmitError::Failed(error.clone()));
        waiters.iter().map(failed).collect()
    });
    let alone = waiters.len() == 1;
    let deliver = move || {
        for (waiter, answered) in waiters.into_iter().zip(answered) {
            let _ = waiter.answer.send(answered);
        }
    };
    // Several callers are woken from a task on their own threads, since each wake across threads
    // costs more than that task.
    if alone {
        deliver();
    } else {
        callers_thread.spawn(async move { deliver() });
    }
}
