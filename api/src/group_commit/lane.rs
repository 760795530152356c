//! A lane: runs one transaction after another, each with all waiting requests.

use std::{
    iter,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use futures_util::FutureExt;
use shared::{
    batch::{Batch, Waiting},
    postgres::{self, Session},
};
use tokio::{runtime::Handle, time::Instant};
use tracing::{Instrument, Span};

use super::{
    arrivals::Arrivals,
    detour::Detours,
    kind::{Kind, Sharing},
    lanes::LOCK_TIMEOUT,
    member::{Member, Waiter, answer},
    run::run_batch,
};

/// Rules by which a lane builds batches, runs them and answers callers.
pub(super) struct Rules<K: Kind> {
    pub(super) batch_max: usize,
    pub(super) sharing: Sharing,
    pub(super) detours: Arc<Detours<K>>,
    /// Runtime of the callers' threads.
    pub(super) callers: Handle,
}

/// Runs transactions until all senders of requests are gone.
pub(super) async fn run_lane<K: Kind>(
    mut arrivals: Arrivals<K>,
    rules: Rules<K>,
    mut session: Session,
) {
    let turn = arrivals.turn.clone();
    while arrivals.wait(&mut session).await {
        let running = turn.running.lock().await;
        let began = Instant::now();
        let span = arrivals.begin_span();
        let mut joining = Joining {
            key: arrivals.key(),
            rules: &rules,
            arrivals: &mut arrivals,
            span: &span,
            waiters: Vec::new(),
        };
        // Includes requests that arrived while another transaction had the turn.
        let mut first = joining.take_first();
        if rules.detours.are_under_way() {
            first = rules.detours.divert(&mut session, first).await;
        }
        let requests;
        (requests, joining.waiters) = part(first, &span);
        let mut batch = Batch::joined_by(requests, &mut joining);
        let running_batch = run_batch::<K>(&mut session, &mut batch);
        // A panic loses this batch, whose callers get `SubmitError::Lost`, but not the lane.
        let result = AssertUnwindSafe(running_batch.instrument(span.clone()))
            .catch_unwind()
            .await;
        let requests = batch.into_members();
        let waiters = joining.waiters;
        let members = waiters.len();
        turn.is_busy.store(members > 1, SeqCst);
        match result {
            Ok(Err(postgres::Error::Locked(_))) => {
                let locked = Member::put_together(requests, waiters);
                run_the_rest(&mut session, &rules, locked, &span).await;
            }
            Ok(result) => answer(waiters, result, &rules.callers),
            Err(_) => {}
        }
        drop(running);
        arrivals.go_back();
        arrivals.metrics.observe(members, began);
    }
}

/// Requests that can join the lane's batch while it waits for its locks.
struct Joining<'l, K: Kind> {
    arrivals: &'l mut Arrivals<K>,
    rules: &'l Rules<K>,
    /// Key of the first request.
    key: Option<i64>,
    /// Span of the transaction.
    span: &'l Span,
    /// Callers of the batch's members, in the same order.
    waiters: Vec<Waiter<K>>,
}

impl<K: Kind> Joining<'_, K> {
    /// Takes the requests that wait now, up to a full batch.
    fn take_first(&mut self) -> Vec<Member<K>> {
        let batch_max = self.rules.batch_max;
        let waiting = iter::from_fn(|| self.next_if(&|_| true));
        waiting.take(batch_max).collect()
    }

    fn next_if(&mut self, fits: &dyn Fn(&K::Request) -> bool) -> Option<Member<K>> {
        let (sharing, key) = (self.rules.sharing, self.key);
        self.arrivals.next_if(&|member| {
            let shares = sharing == Sharing::Any || Some(member.waiter.key) == key;
            shares && fits(&member.request)
        })
    }
}

impl<K: Kind> Waiting<K::Request> for Joining<'_, K> {
    fn next_if(&mut self, fits: &dyn Fn(&K::Request) -> bool) -> Option<K::Request> {
        if self.waiters.len() == self.rules.batch_max {
            return None;
        }
        let (request, waiter) = Joining::next_if(self, fits)?.join(self.span);
        self.waiters.push(waiter);
        Some(request)
    }
}

/// Runs the members of a batch that could not acquire a lock, and diverts those that need it.
///
/// Retries for as long as requests wait for a lock ([`LOCK_TIMEOUT`]), since under contention
/// another session may be faster again.
async fn run_the_rest<K: Kind>(
    session: &mut Session,
    rules: &Rules<K>,
    mut members: Vec<Member<K>>,
    span: &Span,
) {
    let began = Instant::now();
    loop {
        members = rules.detours.divert(session, members).await;
        let (requests, waiters) = part(members, span);
        let mut batch = Batch::of(requests);
        let running = run_batch::<K>(session, &mut batch).instrument(span.clone());
        match AssertUnwindSafe(running).catch_unwind().await {
            Ok(Err(postgres::Error::Locked(_))) if began.elapsed() < LOCK_TIMEOUT => {
                members = Member::put_together(batch.into_members(), waiters);
            }
            Ok(result) => return answer(waiters, result, &rules.callers),
            Err(_) => return,
        }
    }
}

/// Splits members into their requests and the callers that get the answers.
fn part<K: Kind>(members: Vec<Member<K>>, span: &Span) -> (Vec<K::Request>, Vec<Waiter<K>>) {
    members.into_iter().map(|member| member.join(span)).unzip()
}
