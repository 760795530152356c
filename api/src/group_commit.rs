//! Group commit: concurrent requests share one transaction.
//!
//! A row lock held across a COMMIT limits a hot show to one booking per flush of the write-ahead
//! log. So requests are batched: while one transaction is in flight, the requests that arrive wait,
//! and the next transaction takes them all. While that transaction waits for its locks, more
//! requests join it. A lone request is a batch of one and does not wait; there is no timer.
//!
//! Measured: batches reinforce each other, so few lanes with big batches are faster than many
//! lanes.
//!
//! If a batch cannot acquire one of its locks soon, because another session holds it, the batch
//! goes on without the requests that need this lock. Those wait outside the lane, on a [detour].
//!
//! On [Citus](shared::postgres::citus), all requests of a transaction are for the same show.

mod arrivals;
mod detour;
pub(crate) mod kinds;
mod lane;

use std::{
    collections::VecDeque,
    io, iter,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use prometheus::{Histogram, IntGauge};
use shared::{
    batch::Batch,
    postgres::{self, Database, Session},
    telemetry::traces,
};
use tokio::{
    runtime::{self, Handle, Runtime},
    sync::{Mutex, Semaphore, mpsc, oneshot},
    time::Instant,
};
use tracing::Span;

pub(crate) use self::detour::FindMissing;
use self::{
    arrivals::Arrivals,
    detour::{DETOURS_MAX, Detours},
    lane::{Rules, run_lane},
};
use crate::metrics::{BATCH_SECONDS, BATCH_SIZE, WAITING};

/// A kind of request, and how its batches run.
pub(crate) struct Kind<Request, Answer> {
    /// Name in metrics and traces.
    pub(crate) name: &'static str,
    pub(crate) transaction: Transaction<Request, Answer>,
    pub(crate) find_missing: FindMissing<Request>,
}

/// Runs a batch in one transaction and returns an answer for each member, in order.
///
/// An error means that no request was done, except [`postgres::Error::OutcomeUnknown`].
pub(crate) type Transaction<Request, Answer> =
    for<'t> fn(
        &'t mut Session,
        &'t mut Batch<'_, Request>,
    ) -> BoxFuture<'t, Result<Vec<Answer>, postgres::Error>>;

/// Limits of batches and lanes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum number of requests that share a transaction.
    ///
    /// With 1, every request has its own transaction, and as many run concurrently as there are
    /// connections to the database.
    pub(crate) batch_max: usize,
    /// Maximum number of transactions of one kind in flight.
    pub(crate) lanes: usize,
    /// Maximum number of requests that wait for a lane; bounds memory.
    pub(crate) queue_max: usize,
}

/// Which requests can share a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// All requests of a lane.
    Any,
    /// Requests with the same key.
    SameKey,
}

/// The thread that runs the lanes, with its own connection pool.
///
/// Among the tasks that serve HTTP, each round trip of a transaction would wait until dozens of
/// those tasks had run, while the show stays locked.
pub(crate) struct Lanes {
    limits: Limits,
    database: Database,
    /// Database with the connection pool of the callers' threads.
    direct: Database,
    thread: Handle,
    runtime: Option<Runtime>,
    /// Permits for detours, shared by all kinds of requests.
    detours: Arc<Semaphore>,
}

impl Lanes {
    /// Starts the thread. Its connections are opened on demand.
    pub(crate) fn start(direct: &Database, limits: Limits) -> io::Result<Self> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("lanes")
            .enable_all()
            .build()?;
        let thread = runtime.handle().clone();
        let _entered = thread.enter();
        let connections = u32::try_from(limits.lanes * KINDS + DETOURS_MAX).unwrap_or(u32::MAX);
        Ok(Self {
            limits,
            database: direct.beside(connections),
            direct: direct.clone(),
            thread: thread.clone(),
            runtime: Some(runtime),
            detours: Arc::new(Semaphore::new(DETOURS_MAX)),
        })
    }

    /// Returns the maximum number of database connections of the lanes.
    pub(crate) fn connections(&self) -> u32 {
        self.database.pool.options().get_max_connections()
    }

    /// Closes the connections and stops the thread.
    pub(crate) async fn stop(self) {
        self.database.pool.close().await;
    }
}

impl Drop for Lanes {
    /// Stops the thread, and abandons transactions in flight.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Number of kinds with their own lanes: reserve, confirm, cancel, extend and locate.
const KINDS: usize = 5;

/// How long requests wait for locks: the usual lock timeout of a session.
const PATIENCE: Duration = Duration::from_secs(2);

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

/// A request, and the caller that waits for its answer.
struct Member<Request, Answer> {
    request: Request,
    caller: Caller<Answer>,
}

struct Caller<Answer> {
    key: i64,
    /// Span of the request; `Span::none()` if traces are off.
    span: Span,
    answer: oneshot::Sender<Answered<Answer>>,
}

/// Result of a request.
type Answered<Answer> = Result<Answer, SubmitError>;

impl<Request, Answer> Member<Request, Answer> {
    /// Returns a member for a caller in the current span, and the receiver of its answer.
    fn new(key: i64, request: Request) -> (Self, oneshot::Receiver<Answered<Answer>>) {
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
    fn join(self, span: &Span) -> (Request, Caller<Answer>) {
        span.follows_from(&self.caller.span);
        self.caller.span.follows_from(span);
        (self.request, self.caller)
    }

    fn put_together(requests: Vec<Request>, callers: Vec<Caller<Answer>>) -> Vec<Self> {
        iter::zip(requests, callers)
            .map(|(request, caller)| Self { request, caller })
            .collect()
    }
}

impl<Answer> Caller<Answer> {
    /// Returns whether the caller no longer waits for its answer.
    fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }
}

/// Metrics for one kind of transaction.
#[derive(Clone)]
struct Figures {
    kind: &'static str,
    size: Histogram,
    seconds: Histogram,
    waiting: IntGauge,
}

impl Figures {
    fn of(kind: &'static str) -> Self {
        Self {
            kind,
            size: BATCH_SIZE.with_label_values(&[kind]),
            seconds: BATCH_SECONDS.with_label_values(&[kind]),
            waiting: WAITING.with_label_values(&[kind]),
        }
    }

    fn observe(&self, members: usize, began: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "at most a thousand")]
        self.size.observe(members as f64);
        self.seconds.observe(began.elapsed().as_secs_f64());
    }
}

/// Batches the requests of one kind into shared transactions.
pub(crate) struct GroupCommit<Request, Answer> {
    direct: Database,
    figures: Figures,
    transaction: Transaction<Request, Answer>,
    /// Empty if every request has its own transaction.
    lanes: Vec<Lane<Request, Answer>>,
    detours: Arc<Detours<Request, Answer>>,
    queue_max: usize,
}

/// Handle of a lane.
struct Lane<Request, Answer> {
    queue: mpsc::UnboundedSender<Member<Request, Answer>>,
    turn: Arc<Turn>,
}

/// Limits a lane to one transaction at a time, without reordering requests.
#[derive(Default)]
struct Turn {
    running: Mutex<()>,
    /// Number of requests not yet in a transaction. Only the holder of `running` takes any of them.
    waiting: AtomicUsize,
    /// Whether the lane's last transaction had several requests, so that more are about to arrive.
    is_busy: AtomicBool,
}

impl<Request, Answer> GroupCommit<Request, Answer>
where
    Request: Clone + Send + Sync + 'static,
    Answer: Send + 'static,
{
    /// Starts the lanes, which stop when this is dropped.
    pub(crate) fn start(kind: &Kind<Request, Answer>, lanes: &Lanes, sharing: Sharing) -> Self {
        let Limits {
            batch_max,
            queue_max,
            ..
        } = lanes.limits;
        let detours = Arc::new(Detours::new(kind, lanes, sharing));
        let figures = Figures::of(kind.name);
        let count = if batch_max == 1 {
            0
        } else {
            lanes.limits.lanes
        };
        let start_lane = |_| {
            let (sender, queue) = mpsc::unbounded_channel();
            let turn = Arc::new(Turn::default());
            let arrivals = Arrivals {
                queue,
                front: VecDeque::new(),
                passed: VecDeque::new(),
                turn: turn.clone(),
                figures: figures.clone(),
            };
            let rules = Rules {
                batch_max,
                sharing,
                transaction: kind.transaction,
                detours: detours.clone(),
                callers: Handle::current(),
            };
            let session = Session::chained(&lanes.database).impatient();
            lanes.thread.spawn(run_lane(arrivals, rules, session));
            Lane {
                queue: sender,
                turn,
            }
        };
        Self {
            direct: lanes.direct.clone(),
            lanes: (0..count).map(start_lane).collect(),
            figures,
            transaction: kind.transaction,
            detours,
            queue_max,
        }
    }

    /// Runs the request in a transaction with others, and waits for its answer.
    ///
    /// Requests with the same key run in the order in which they arrive. A caller that goes away
    /// withdraws its request, unless a transaction has taken it; other requests are unaffected.
    ///
    /// # Errors
    ///
    /// Fails if the queue is full, or if the transaction fails or panics.
    pub(crate) async fn submit(&self, key: i64, request: Request) -> Answered<Answer> {
        if self.lanes.is_empty() {
            return self.run_here(Session::new(&self.direct), request).await;
        }
        let Lane { queue, turn } = &self.lanes[lane_of(key, self.lanes.len())];
        // A lone request avoids the trip to the lane's thread and back, which takes as long as two
        // round trips to the database.
        if !turn.is_busy.load(SeqCst)
            && turn.waiting.load(SeqCst) == 0
            && !self.detours.are_under_way()
            && let Ok(running) = turn.running.try_lock()
        {
            let session = Session::new(&self.direct).impatient();
            match self.run_here(session, request.clone()).await {
                // Gives up the turn and joins the queue: requests that arrived meanwhile wait for
                // the turn, not for the lock.
                Err(SubmitError::Failed(error)) if matches!(*error, postgres::Error::Locked(_)) => {
                }
                answered => return answered,
            }
            drop(running);
        }
        if turn.waiting.fetch_add(1, SeqCst) >= self.queue_max {
            turn.waiting.fetch_sub(1, SeqCst);
            return Err(SubmitError::Overloaded);
        }
        let (member, answered) = Member::new(key, request);
        self.figures.waiting.inc();
        if queue.send(member).is_err() {
            return Err(SubmitError::Lost);
        }
        answered.await.unwrap_or(Err(SubmitError::Lost))
    }

    /// Runs the request alone, on the caller's thread and with a connection of its pool.
    async fn run_here(&self, mut session: Session, request: Request) -> Answered<Answer> {
        let began = Instant::now();
        let answered = alone(&mut session, self.transaction, request).await;
        self.figures.observe(1, began);
        answered
    }
}

fn lane_of(key: i64, lanes: usize) -> usize {
    usize::try_from(key.unsigned_abs()).unwrap_or_default() % lanes
}

/// Sends each caller its answer, or the error to all of them. Callers that went away are ignored.
fn answer<Answer: Send + 'static>(
    callers: Vec<Caller<Answer>>,
    result: Result<Vec<Answered<Answer>>, postgres::Error>,
    callers_thread: &Handle,
) {
    let answered = result.unwrap_or_else(|error| {
        let error = Arc::new(error);
        let failed = |_: &Caller<Answer>| Err(SubmitError::Failed(error.clone()));
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

/// Runs a batch, or each member alone if the batch failed and one member may be the cause.
///
/// # Errors
///
/// Fails if no member was done, or if the outcome is unknown.
async fn run_batch<Request, Answer>(
    session: &mut Session,
    transaction: Transaction<Request, Answer>,
    batch: &mut Batch<'_, Request>,
) -> Result<Vec<Answered<Answer>>, postgres::Error>
where
    Request: Clone,
{
    if batch.members().is_empty() {
        return Ok(Vec::new());
    }
    let result = transaction(session, batch).await;
    let requests = batch.members();
    match result {
        Ok(answers) => Ok(answers.into_iter().map(Ok).collect()),
        Err(error) if requests.len() > 1 && may_be_one_members_fault(&error) => {
            tracing::warn!(
                members = requests.len(),
                error = shared::telemetry::chain(&error),
                "batch failed; running its members one by one"
            );
            let mut results = Vec::with_capacity(requests.len());
            for request in requests {
                results.push(alone(session, transaction, request.clone()).await);
            }
            Ok(results)
        }
        Err(error) => Err(error),
    }
}

/// Returns whether it helps, and is safe, to run the members of a failed batch one by one.
///
/// It does not help while the database is unavailable or a lock cannot be acquired, since each
/// member would wait for the same thing. It is never safe if the batch may have been committed.
fn may_be_one_members_fault(error: &postgres::Error) -> bool {
    match error {
        postgres::Error::Unexpected(_) | postgres::Error::RowCountMismatch { .. } => true,
        postgres::Error::Conflict(_)
        | postgres::Error::Locked(_)
        | postgres::Error::Unavailable(_)
        | postgres::Error::NeedsOperator(_)
        | postgres::Error::NotReady(_)
        | postgres::Error::Stale(_)
        | postgres::Error::OutcomeUnknown(_) => false,
    }
}

async fn alone<Request, Answer>(
    session: &mut Session,
    transaction: Transaction<Request, Answer>,
    request: Request,
) -> Result<Answer, SubmitError> {
    let answers = transaction(session, &mut Batch::of(vec![request]))
        .await
        .map_err(|error| SubmitError::Failed(Arc::new(error)))?;
    answers.into_iter().next().ok_or(SubmitError::Lost)
}

#[cfg(test)]
mod tests;
