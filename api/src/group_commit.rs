//! Group commit: concurrent requests share one transaction.
//!
//! A row lock held across a COMMIT limits a hot show to one booking per flush of the write-ahead log. So requests
//! gather: while one transaction is at the database, those that arrive wait together, and the next transaction
//! takes them all; while that one waits for its locks, more of them join. A lone request is a batch of one and waits for nobody; there is no timer.
//!
//! Measured: batches feed on each other, so few lanes with big batches are faster than many lanes.
//!
//! On [Citus](shared::postgres::citus) the requests of a transaction are for one show.

use std::{
    collections::VecDeque,
    io, iter, mem,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use prometheus::{Histogram, IntGauge};
use shared::{
    batch::Batch,
    postgres::{self, Database, Session},
    telemetry::traces,
};
use tokio::{
    runtime::{self, Handle, Runtime},
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, timeout},
};
use tracing::{Instrument, Span};

use crate::metrics::{BATCH_SECONDS, BATCH_SIZE, WAITING};

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
        let connections = u32::try_from(limits.lanes * KINDS).unwrap_or(u32::MAX);
        Ok(Self {
            limits,
            database: direct.beside(connections),
            direct: direct.clone(),
            thread: thread.clone(),
            runtime: Some(runtime),
        })
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

struct Member<Request, Answer> {
    key: i64,
    request: Request,
    /// Of the request; none where no traces are made.
    span: Span,
    answer: oneshot::Sender<Result<Answer, Unanswered>>,
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
    queue_max: usize,
}

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
    pub(crate) fn start(
        kind: &'static str,
        Lanes {
            limits,
            database,
            direct,
            thread,
            ..
        }: &Lanes,
        sharing: Sharing,
        transaction: Transaction<Request, Answer>,
    ) -> Self {
        let count = if limits.batch_max == 1 {
            0
        } else {
            limits.lanes
        };
        let figures = Figures::of(kind);
        let lanes = (0..count)
            .map(|_| {
                let (sender, queue) = mpsc::unbounded_channel();
                let turn = Arc::new(Turn::default());
                let arrivals = Arrivals {
                    queue,
                    front: VecDeque::new(),
                    passed: VecDeque::new(),
                    turn: turn.clone(),
                    figures: figures.clone(),
                };
                thread.spawn(run_lane(
                    arrivals,
                    Rules {
                        batch_max: limits.batch_max,
                        sharing,
                    },
                    Session::chained(database),
                    transaction,
                    Handle::current(),
                ));
                Lane {
                    queue: sender,
                    turn,
                }
            })
            .collect();
        Self {
            direct: direct.clone(),
            figures,
            transaction,
            lanes,
            queue_max: limits.queue_max,
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
    pub(crate) async fn submit(&self, key: i64, request: Request) -> Result<Answer, Unanswered> {
        if self.lanes.is_empty() {
            return self.run_here(request).await;
        }
        let Lane { queue, turn } = &self.lanes[lane_of(key, self.lanes.len())];
        // Who is alone spares itself the way to the lane's thread and back, which is as long as two round trips.
        if !turn.is_busy.load(SeqCst)
            && turn.waiting.load(SeqCst) == 0
            && let Ok(_running) = turn.running.try_lock()
        {
            return self.run_here(request).await;
        }
        if turn.waiting.fetch_add(1, SeqCst) >= self.queue_max {
            turn.waiting.fetch_sub(1, SeqCst);
            return Err(Unanswered::Overloaded);
        }
        let (answer, answered) = oneshot::channel();
        let span = if traces::are_made() {
            Span::current()
        } else {
            Span::none()
        };
        let member = Member {
            key,
            request,
            span,
            answer,
        };
        self.figures.waiting.inc();
        if queue.send(member).is_err() {
            return Err(Unanswered::Lost);
        }
        answered.await.unwrap_or(Err(Unanswered::Lost))
    }

    /// On the caller's thread, with a connection that belongs there.
    async fn run_here(&self, request: Request) -> Result<Answer, Unanswered> {
        let began = Instant::now();
        let answer = alone(&mut Session::new(&self.direct), self.transaction, request).await;
        self.figures.observe(1, began);
        answer
    }
}

fn lane_of(key: i64, lanes: usize) -> usize {
    usize::try_from(key.unsigned_abs()).unwrap_or_default() % lanes
}

/// What a batch is made by.
struct Rules {
    batch_max: usize,
    sharing: Sharing,
}

async fn run_lane<Request, Answer>(
    mut arrivals: Arrivals<Request, Answer>,
    rules: Rules,
    mut session: Session,
    transaction: Transaction<Request, Answer>,
    callers: Handle,
) where
    Request: Clone + Send + Sync + 'static,
    Answer: Send + 'static,
{
    let turn = arrivals.turn.clone();
    while arrivals.wait(&mut session).await {
        let running = turn.running.lock().await;
        let began = Instant::now();
        let mut answers = Vec::new();
        let span = arrivals.begin_span();
        let key = arrivals.key();
        let mut next_if = |fits: &dyn Fn(&Request) -> bool| {
            if answers.len() == rules.batch_max {
                return None;
            }
            let member = arrivals.next_if(&|member| {
                (rules.sharing == Sharing::Any || Some(member.key) == key) && fits(&member.request)
            })?;
            answers.push(member.answer);
            // Traces of the others lead to the one that this transaction is in, and back.
            span.follows_from(&member.span);
            member.span.follows_from(&span);
            Some(member.request)
        };
        // Those too that came while another one had the turn.
        let first = iter::from_fn(|| next_if(&|_| true)).collect();
        let mut batch = Batch::joined_by(first, &mut next_if);
        let batch = run_batch(&mut session, transaction, &mut batch).instrument(span.clone());
        // A panic loses this batch, whose callers see that nobody will answer, and not the lane.
        let results = AssertUnwindSafe(batch).catch_unwind().await;
        turn.is_busy.store(answers.len() > 1, SeqCst);
        drop(running);
        arrivals.go_back();
        arrivals.figures.observe(answers.len(), began);
        if let Ok(results) = results {
            answer(answers, results, &callers);
        }
    }
}

/// Those who wait in front of a lane, in the order in which they came.
struct Arrivals<Request, Answer> {
    queue: mpsc::UnboundedReceiver<Member<Request, Answer>>,
    /// Those at its front, whom an earlier batch passed.
    front: VecDeque<Member<Request, Answer>>,
    /// Whom this batch passed, since they did not fit: the next one begins with them.
    passed: VecDeque<Member<Request, Answer>>,
    turn: Arc<Turn>,
    figures: Figures,
}

/// How long nobody asks for anything before the lane gives its connection back.
const RESTS_AFTER: Duration = Duration::from_millis(100);

impl<Request, Answer> Arrivals<Request, Answer> {
    /// Waits until somebody is there; false when nobody will come any more.
    async fn wait(&mut self, session: &mut Session) -> bool {
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
    fn key(&self) -> Option<i64> {
        let first = self.front.iter().find(|member| !member.answer.is_closed());
        first.map(|first| first.key)
    }

    /// The span of a transaction, in the trace of the first one.
    fn begin_span(&self) -> Span {
        match self.front.front() {
            Some(first) if traces::are_made() => {
                tracing::info_span!(parent: &first.span, "transaction", kind = self.figures.kind)
            }
            _ => Span::none(),
        }
    }

    /// The next one that fits. Those that went away meanwhile are left out.
    fn next_if(
        &mut self,
        fits: &dyn Fn(&Member<Request, Answer>) -> bool,
    ) -> Option<Member<Request, Answer>> {
        loop {
            let next = self
                .front
                .pop_front()
                .or_else(|| self.queue.try_recv().ok())?;
            let is_gone = next.answer.is_closed();
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
    fn go_back(&mut self) {
        self.passed.append(&mut self.front);
        mem::swap(&mut self.passed, &mut self.front);
    }
}

/// Gives each caller its answer. One that went away meanwhile does not want it.
fn answer<Answer: Send + 'static>(
    answers: Vec<oneshot::Sender<Result<Answer, Unanswered>>>,
    results: Vec<Result<Answer, Unanswered>>,
    callers: &Handle,
) {
    let alone = answers.len() == 1;
    let deliver = move || {
        for (answer, result) in answers.into_iter().zip(results) {
            let _ = answer.send(result);
        }
    };
    // Many callers are woken from their own threads, since each wake across threads costs more than one task.
    if alone {
        deliver();
    } else {
        callers.spawn(async move { deliver() });
    }
}

async fn run_batch<Request, Answer>(
    session: &mut Session,
    transaction: Transaction<Request, Answer>,
    batch: &mut Batch<'_, Request>,
) -> Vec<Result<Answer, Unanswered>>
where
    Request: Clone,
{
    if batch.members().is_empty() {
        return Vec::new();
    }
    let result = transaction(session, batch).await;
    let requests = batch.members();
    match result {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
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
            results
        }
        Err(error) => {
            let error = Arc::new(error);
            requests
                .iter()
                .map(|_| Err(Unanswered::Failed(error.clone())))
                .collect()
        }
    }
}

/// Whether running the members of a failed batch one by one can help and can do no harm. Not while the database is
/// away or a lock can't be had, since each member would wait for the same; and never when the batch may have been
/// committed.
fn may_be_one_members_fault(error: &postgres::Error) -> bool {
    match error {
        postgres::Error::Unexpected(_) | postgres::Error::Drift { .. } => true,
        postgres::Error::Conflict(_)
        | postgres::Error::Unavailable(_)
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
