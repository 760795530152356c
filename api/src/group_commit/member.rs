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
    pub(super) caller: Caller<K>,
}

pub(super) struct Caller<K: Kind> {
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
        let caller = Caller { key, span, answer };
        (Self { request, caller }, answered)
    }

    /// Splits the request from its caller, and links the spans of caller and transaction both ways.
    pub(super) fn join(self, span: &Span) -> (K::Request, Caller<K>) {
        span.follows_from(&self.caller.span);
        self.caller.span.follows_from(span);
        (self.request, self.caller)
    }

    pub(super) fn put_together(requests: Vec<K::Request>, callers: Vec<Caller<K>>) -> Vec<Self> {
        iter::zip(requests, callers)
            .map(|(request, caller)| Self { request, caller })
            .collect()
    }
}

impl<K: Kind> Caller<K> {
    /// Returns whether the caller no longer waits for its answer.
    pub(super) fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }
}

/// Sends each caller its answer, or the error to all of them. Callers that went away are ignored.
pub(super) fn answer<K: Kind>(
    callers: Vec<Caller<K>>,
    result: Result<Vec<Answered<K>>, postgres::Error>,
    callers_thread: &Handle,
) {
    let answered = result.unwrap_or_else(|error| {
        let error = Arc::new(error);
        let failed = |_: &Caller<K>| Err(SubmitError::Failed(error.clone()));
        callers.iter().map(failed).collect()
    });
    let alone = callers.len() == 1;
    let deliver = move || {
        for (caller, answered) in callers.into_iter().zip(answered) {
            let _ = caller.answer.send(answered);
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
