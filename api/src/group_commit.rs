//! Group commit: concurrent requests share one transaction.
//!
//! A row lock held across a COMMIT limits a hot show to one booking per flush of the write-ahead log. So requests
//! gather: while one transaction is at the database, those that arrive wait together, and the next transaction
//! takes them all; while that one waits for its locks, more of them join. A lone request is a batch of one and waits for nobody; there is no timer.
//!
//! Measured: batches feed on each other, so few lanes with big batches are faster than many lanes.
//!
//! A batch that can't have one of its locks soon, because somebody keeps it, goes on without the requests for it: they wait apart,
//! on a [detour].
//!
//! On [Citus](shared::postgres::citus) the requests of a transaction are for one show.

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

/// What is done with requests of one kind.
pub(crate) struct Kind<Request, Answer> {
    /// In metrics and traces.
    pub(crate) name: &'static str,
    pub(crate) transaction: Transaction<Request, Answer>,
    pub(crate) find_missing: FindMissing<Request>,
}

/// Runs a batch in one transaction and answers each member, in their order. An error means that none was done, but
/// for [`postgres::Error::OutcomeUnknown`].
pub(crate) type Transaction<Request, Answer> =
    for<'t> fn(
        &'t mut Session,
        &'t mut Batch<'_, Request>,
    ) -> BoxFuture<'t, Result<Vec<Answer>, postgres::Error>>;

/// How requests are gathered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The most requests that share a transaction. With 1, every request has its own, and as many run at the same
    /// time as there are connections to the database.
    pub(crate) batch_max: usize,
    /// How many transactions of one kind may be at the database at the same time.
    pub(crate) lanes: usize,
    /// The most requests that wait in front of a lane; bounds memory.
    pub(crate) queue_max: usize,
}

/// Which requests can share a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// All of a lane.
    Any,
    /// Those with the same key.
    SameKey,
}

/// Where the lanes run: a thread of their own, with connections of their own.
///
/// Among the tasks that serve HTTP, each of a transaction's round trips would wait until dozens of them had their
/// turn, while the show stays locked.
pub(crate) struct Lanes {
    limits: Limits,
    database: Database,
    /// Of the callers' threads.
    direct: Database,
    thread: Handle,
    runtime: Option<Runtime>,
    /// For requests of all kinds that wait for a lock.
    detours: Arc<Semaphore>,
}

impl Lanes {
    /// Starts the thread. Its connections are opened when they are needed.
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

    /// The most connections to the database that it opens.
    pub(crate) fn connections(&self) -> u32 {
        self.database.pool.options().get_max_connections()
    }

    /// Closes its connections, and ends the thread.
    pub(crate) async fn stop(self) {
        self.database.pool.close().await;
    }
}

impl Drop for Lanes {
    /// Ends the thread, with whatever is still at the database.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Reserve, confirm, cancel, extend and locate each have their lanes.
const KINDS: usize = 5;

/// How long requests wait for locks, as long as a session does that waits for one.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// Too many requests wait already. Nothing was done.
    Overloaded,
    /// Its transaction failed, perhaps together with others.
    Failed(Arc<postgres::Error>),
    /// Its transaction panicked.
    Lost,
}

/// A request, and who waits for its answer.
struct Member<Request, Answer> {
    request: Request,
    caller: Caller<Answer>,
}

struct Caller<Answer> {
    key: i64,
    /// Of the request; none where no traces are made.
    span: Span,
    answer: oneshot::Sender<Answered<Answer>>,
}

/// What becomes of a request.
type Answered<Answer> = Result<Answer, Unanswered>;

impl<Request, Answer> Member<Request, Answer> {
    /// For the caller whose span is the current one.
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

    /// Parts them, for a transaction with this span: the traces of each lead to it, and back.
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
    /// Whether nobody waits for the answer any more.
    fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }
}

/// What is told of the transactions of one kind.
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
        #[expect(clippy::cast_precision_loss, reason = "a thousand at most")]
        self.size.observe(members as f64);
        self.seconds.observe(began.elapsed().as_secs_f64());
    }
}

/// Gathers the requests of one kind.
pub(crate) struct GroupCommit<Request, Answer> {
    direct: Database,
    figures: Figures,
    transaction: Transaction<Request, Answer>,
    /// None when every request has its own transaction.
    lanes: Vec<Lane<Request, Answer>>,
    detours: Arc<Detours<Request, Answer>>,
    queue_max: usize,
}

/// The way to a lane.
struct Lane<Request, Answer> {
    queue: mpsc::UnboundedSender<Member<Request, Answer>>,
    turn: Arc<Turn>,
}

/// One transaction of a lane at a time, and nobody overtakes.
#[derive(Default)]
struct Turn {
    running: Mutex<()>,
    /// Requests that came and are in no transaction yet. Only who has the turn takes from it.
    waiting: AtomicUsize,
    /// Whether the lane's last transaction had several requests, so that more of them are about to come.
    is_busy: AtomicBool,
}

impl<Request, Answer> GroupCommit<Request, Answer>
where
    Request: Clone + Send + Sync + 'static,
    Answer: Send + 'static,
{
    /// Starts the lanes. They end when this is dropped.
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

    /// Does the request in a transaction with others, and waits for its answer. Requests with the same key are done
    /// in the order in which they came.
    ///
    /// A caller that goes away takes its request back if no transaction has taken it yet; the others don't notice.
    ///
    /// # Errors
    ///
    /// [`Unanswered`].
    pub(crate) async fn submit(&self, key: i64, request: Request) -> Answered<Answer> {
        if self.lanes.is_empty() {
            return self.run_here(Session::new(&self.direct), request).await;
        }
        let Lane { queue, turn } = &self.lanes[lane_of(key, self.lanes.len())];
        // Who is alone spares itself the way to the lane's thread and back, which is as long as two round trips.
        if !turn.is_busy.load(SeqCst)
            && turn.waiting.load(SeqCst) == 0
            && !self.detours.are_under_way()
            && let Ok(running) = turn.running.try_lock()
        {
            let session = Session::new(&self.direct).impatient();
            match self.run_here(session, request.clone()).await {
                // Whoever came meanwhile waits for the turn, and not for the lock.
                Err(Unanswered::Failed(error)) if matches!(*error, postgres::Error::Locked(_)) => {}
                answered => return answered,
            }
            drop(running);
        }
        if turn.waiting.fetch_add(1, SeqCst) >= self.queue_max {
            turn.waiting.fetch_sub(1, SeqCst);
            return Err(Unanswered::Overloaded);
        }
        let (member, answered) = Member::new(key, request);
        self.figures.waiting.inc();
        if queue.send(member).is_err() {
            return Err(Unanswered::Lost);
        }
        answered.await.unwrap_or(Err(Unanswered::Lost))
    }

    /// On the caller's thread, with a connection that belongs there.
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

/// Gives each caller its answer, or all of them the error. One that went away meanwhile does not want it.
fn answer<Answer: Send + 'static>(
    callers: Vec<Caller<Answer>>,
    result: Result<Vec<Answered<Answer>>, postgres::Error>,
    callers_thread: &Handle,
) {
    let answered = result.unwrap_or_else(|error| {
        let error = Arc::new(error);
        let failed = |_: &Caller<Answer>| Err(Unanswered::Failed(error.clone()));
        callers.iter().map(failed).collect()
    });
    let alone = callers.len() == 1;
    let deliver = move || {
        for (caller, answered) in callers.into_iter().zip(answered) {
            let _ = caller.answer.send(answered);
        }
    };
    // Many callers are woken from their own threads, since each wake across threads costs more than one task.
    if alone {
        deliver();
    } else {
        callers_thread.spawn(async move { deliver() });
    }
}

/// Runs a batch, and where one of its members may be at fault each of them by itself.
///
/// # Errors
///
/// When none was done.
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
                "a batch failed, its members are run one by one"
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

/// Whether running the members of a failed batch one by one can help and can do no harm. Not while the database is
/// away or a lock can't be had, since each member would wait for the same; and never when the batch may have been
/// committed.
fn may_be_one_members_fault(error: &postgres::Error) -> bool {
    match error {
        postgres::Error::Unexpected(_) | postgres::Error::Drift { .. } => true,
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
) -> Result<Answer, Unanswered> {
    let answers = transaction(session, &mut Batch::of(vec![request]))
        .await
        .map_err(|error| Unanswered::Failed(Arc::new(error)))?;
    answers.into_iter().next().ok_or(Unanswered::Lost)
}

#[cfg(test)]
mod tests;
