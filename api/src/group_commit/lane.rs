//! A lane: runs one transaction after another, each with all waiting requests.

use std::{
    iter,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use futures_util::FutureExt;
use shared::{
    batch::Batch,
    postgres::{self, Session},
};
use tokio::{runtime::Handle, time::Instant};
use tracing::{Instrument, Span};

use super::{
    Caller, Member, PATIENCE, Sharing, Transaction, answer, arrivals::Arrivals, detour::Detours,
    run_batch,
};

/// Rules by which a lane builds batches, runs them and answers callers.
pub(super) struct Rules<Request, Answer> {
    pub(super) batch_max: usize,
    pub(super) sharing: Sharing,
    pub(super) transaction: Transaction<Request, Answer>,
    pub(super) detours: Arc<Detours<Request, Answer>>,
    /// Runtime of the callers' threads.
    pub(super) callers: Handle,
}

/// Runs transactions until all senders of requests are gone.
pub(super) async fn run_lane<Request, Answer>(
    mut arrivals: Arrivals<Request, Answer>,
    rules: Rules<Request, Answer>,
    mut session: Session,
) where
    Request: Clone + Send + Sync + 'static,
    Answer: Send + 'static,
{
    let turn = arrivals.turn.clone();
    while arrivals.wait(&mut session).await {
        let running = turn.running.lock().await;
        let began = Instant::now();
        let span = arrivals.begin_span();
        let key = arrivals.key();
        let shares = |member: &Member<Request, Answer>| {
            rules.sharing == Sharing::Any || Some(member.caller.key) == key
        };
        // Includes requests that arrived while another transaction had the turn.
        let first = iter::from_fn(|| arrivals.next_if(&shares));
        let mut first: Vec<_> = first.take(rules.batch_max).collect();
        if rules.detours.are_under_way() {
            first = rules.detours.divert(&mut session, first).await;
        }
        let (requests, mut callers) = part(first, &span);
        let mut next_if = |fits: &dyn Fn(&Request) -> bool| {
            if callers.len() == rules.batch_max {
                return None;
            }
            let member = arrivals.next_if(&|member| shares(member) && fits(&member.request))?;
            let (request, caller) = member.join(&span);
            callers.push(caller);
            Some(request)
        };
        let mut batch = Batch::joined_by(requests, &mut next_if);
        let running_batch = run_batch(&mut session, rules.transaction, &mut batch);
        // A panic loses this batch, whose callers get `SubmitError::Lost`, but not the lane.
        let result = AssertUnwindSafe(running_batch.instrument(span.clone()))
            .catch_unwind()
            .await;
        let requests = batch.into_members();
        let members = callers.len();
        turn.is_busy.store(members > 1, SeqCst);
        match result {
            Ok(Err(postgres::Error::Locked(_))) => {
                let locked = Member::put_together(requests, callers);
                run_the_rest(&mut session, &rules, locked, &span).await;
            }
            Ok(result) => answer(callers, result, &rules.callers),
            Err(_) => {}
        }
        drop(running);
        arrivals.go_back();
        arrivals.figures.observe(members, began);
    }
}

/// Runs the members of a batch that could not acquire a lock, and diverts those that need it.
///
/// Retries for as long as requests wait for a lock ([`PATIENCE`]), since under contention another
/// session may be faster again.
async fn run_the_rest<Request, Answer>(
    session: &mut Session,
    rules: &Rules<Request, Answer>,
    mut members: Vec<Member<Request, Answer>>,
    span: &Span,
) where
    Request: Clone + Send + Sync + 'static,
    Answer: Send + 'static,
{
    let began = Instant::now();
    loop {
        members = rules.detours.divert(session, members).await;
        let (requests, callers) = part(members, span);
        let mut batch = Batch::of(requests);
        let running = run_batch(session, rules.transaction, &mut batch).instrument(span.clone());
        match AssertUnwindSafe(running).catch_unwind().await {
            Ok(Err(postgres::Error::Locked(_))) if began.elapsed() < PATIENCE => {
                members = Member::put_together(batch.into_members(), callers);
            }
            Ok(result) => return answer(callers, result, &rules.callers),
            Err(_) => return,
        }
    }
}

/// Splits members into their requests and the callers that get the answers.
fn part<Request, Answer>(
    members: Vec<Member<Request, Answer>>,
    span: &Span,
) -> (Vec<Request>, Vec<Caller<Answer>>) {
    members.into_iter().map(|member| member.join(span)).unzip()
}
