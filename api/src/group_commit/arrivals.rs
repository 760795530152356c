//! Requests in front of a lane.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use shared::{postgres::Session, telemetry::traces};
use tokio::{sync::mpsc, time::timeout};
use tracing::Span;

use super::{Figures, Member, Turn};

/// Requests that wait in front of a lane, in the order in which they came.
pub(super) struct Arrivals<Request, Answer> {
    pub(super) queue: mpsc::UnboundedReceiver<Member<Request, Answer>>,
    /// Those at its front, whom an earlier batch passed.
    pub(super) front: VecDeque<Member<Request, Answer>>,
    /// Whom this batch passed, since they did not fit: the next one begins with them.
    pub(super) passed: VecDeque<Member<Request, Answer>>,
    pub(super) turn: Arc<Turn>,
    pub(super) figures: Figures,
}

/// How long nobody asks for anything before the lane gives its connection back.
const RESTS_AFTER: Duration = Duration::from_millis(100);

impl<Request, Answer> Arrivals<Request, Answer> {
    /// Waits until somebody is there; false when nobody will come any more.
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

    /// Of the first one that has not gone away.
    pub(super) fn key(&self) -> Option<i64> {
        let first = self.front.iter().find(|member| !member.caller.is_gone());
        first.map(|first| first.caller.key)
    }

    /// The span of a transaction, in the trace of the first one.
    pub(super) fn begin_span(&self) -> Span {
        match self.front.front() {
            Some(first) if traces::are_made() => {
                tracing::info_span!(parent: &first.caller.span, "transaction", kind = self.figures.kind)
            }
            _ => Span::none(),
        }
    }

    /// The next one that fits. Those that went away meanwhile are left out.
    pub(super) fn next_if(
        &mut self,
        fits: &dyn Fn(&Member<Request, Answer>) -> bool,
    ) -> Option<Member<Request, Answer>> {
        loop {
            let next = self
                .front
                .pop_front()
                .or_else(|| self.queue.try_recv().ok())?;
            let is_gone = next.caller.is_gone();
            if !is_gone && !fits(&next) {
                self.passed.push_back(next);
                continue;
            }
            self.turn.waiting.fetch_sub(1, SeqCst);
            self.figures.waiting.dec();
            if !is_gone {
                return Some(next);
            }
        }
    }

    /// Lets those whom a batch passed be the first again.
    pub(super) fn go_back(&mut self) {
        self.passed.append(&mut self.front);
        mem::swap(&mut self.passed, &mut self.front);
    }
}
