//! Submitting requests: alone on the caller's thread, or to a lane.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use shared::postgres::{self, Database, Session};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    arrivals::{Arrivals, Turn},
    detour::Detours,
    kind::{Kind, Sharing},
    lane::{Rules, run_lane},
    lanes::{Lanes, Limits},
    member::{Answered, Member, SubmitError},
    metrics::BatchMetrics,
    run::run_alone,
};

/// Batches the requests of one kind into shared transactions.
pub(crate) struct GroupCommit<K: Kind> {
    direct: Database,
    metrics: BatchMetrics,
    /// Empty if every request has its own transaction.
    lanes: Vec<Lane<K>>,
    detours: Arc<Detours<K>>,
    queue_max: usize,
}

/// Handle of a lane.
struct Lane<K: Kind> {
    queue: mpsc::UnboundedSender<Member<K>>,
    turn: Arc<Turn>,
}

impl<K: Kind> GroupCommit<K> {
    /// Starts the lanes, which stop when this is dropped.
    pub(crate) fn start(lanes: &Lanes, sharing: Sharing) -> Self {
        let Limits {
            batch_max,
            queue_max,
            ..
        } = lanes.limits;
        let detours = Arc::new(Detours::new(lanes, sharing));
        let metrics = BatchMetrics::of(K::NAME);
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
                metrics: metrics.clone(),
            };
            let rules = Rules {
                batch_max,
                sharing,
                detours: detours.clone(),
                callers: Handle::current(),
            };
            let session = Session::chained(&lanes.database).with_short_lock_timeout();
            lanes.thread.spawn(run_lane(arrivals, rules, session));
            Lane {
                queue: sender,
                turn,
            }
        };
        Self {
            direct: lanes.direct.clone(),
            lanes: (0..count).map(start_lane).collect(),
            metrics,
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
    pub(crate) async fn submit(&self, key: i64, request: K::Request) -> Answered<K> {
        if self.lanes.is_empty() {
            return self.run_here(Session::new(&self.direct), request).await;
        }
        let turn = &self.lane(key).turn;
        // A lone request avoids the trip to the lane's thread and back, which takes as long as two
        // round trips to the database.
        if !turn.is_busy.load(SeqCst)
            && turn.waiting.load(SeqCst) == 0
            && !self.detours.are_under_way()
            && let Ok(running) = turn.running.try_lock()
        {
            let session = Session::new(&self.direct).with_short_lock_timeout();
            match self.run_here(session, request.clone()).await {
                // Gives up the turn and joins the queue: requests that arrived meanwhile wait for
                // the turn, not for the lock.
                Err(SubmitError::Failed(error)) if matches!(*error, postgres::Error::Locked(_)) => {
                }
                answered => return answered,
            }
            drop(running);
        }
        let answered = self.enqueue(key, request, self.queue_max)?;
        answered.await.unwrap_or(Err(SubmitError::Lost))
    }

    /// Runs several requests, each with its key, and returns their answers in the same order.
    ///
    /// All of them are in front of their lanes before a lane takes any, so that those of a lane
    /// share a transaction. Without lanes they run one after the other.
    ///
    /// They take half of the queue at most, so that a caller with many of them cannot keep single
    /// requests of others out of it.
    ///
    /// A request without an answer at the deadline is withdrawn, unless a transaction has taken it.
    pub(crate) async fn submit_all(
        &self,
        requests: Vec<(i64, K::Request)>,
        deadline: Instant,
    ) -> Vec<Answered<K>> {
        let mut answers = Vec::with_capacity(requests.len());
        if self.lanes.is_empty() {
            for (_, request) in requests {
                answers.push(self.run_before(deadline, request).await);
            }
            return answers;
        }
        for enqueued in self.enqueue_all(requests) {
            answers.push(match enqueued {
                Ok(answered) => match timeout_at(deadline, answered).await {
                    Ok(answered) => answered.unwrap_or(Err(SubmitError::Lost)),
                    Err(_) => Err(SubmitError::TimedOut),
                },
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// Puts the requests in front of their lanes, in order.
    fn enqueue_all(
        &self,
        requests: Vec<(i64, K::Request)>,
    ) -> Vec<Result<oneshot::Receiver<Answered<K>>, SubmitError>> {
        // Otherwise an idle lane would take the first request alone.
        let turns = self.lanes.iter().map(|lane| lane.turn.running.try_lock());
        let _idle_lanes: Vec<_> = turns.filter_map(Result::ok).collect();
        let waiting_max = self.queue_max.div_ceil(2);
        let enqueued = requests
            .into_iter()
            .map(|(key, request)| self.enqueue(key, request, waiting_max));
        enqueued.collect()
    }

    /// Puts a request in front of its lane, and returns the receiver of its answer.
    ///
    /// # Errors
    ///
    /// Fails if `waiting_max` requests wait for the lane.
    fn enqueue(
        &self,
        key: i64,
        request: K::Request,
        waiting_max: usize,
    ) -> Result<oneshot::Receiver<Answered<K>>, SubmitError> {
        let Lane { queue, turn } = self.lane(key);
        if turn.waiting.fetch_add(1, SeqCst) >= waiting_max {
            turn.waiting.fetch_sub(1, SeqCst);
            return Err(SubmitError::Overloaded);
        }
        let (member, answered) = Member::new(key, request);
        self.metrics.waiting.inc();
        queue.send(member).map_err(|_| SubmitError::Lost)?;
        Ok(answered)
    }

    /// Returns the lane of requests with this key. There must be lanes.
    fn lane(&self, key: i64) -> &Lane<K> {
        let number = usize::try_from(key.unsigned_abs()).unwrap_or_default();
        &self.lanes[number % self.lanes.len()]
    }

    /// Runs the request alone, unless the deadline has passed.
    async fn run_before(&self, deadline: Instant, request: K::Request) -> Answered<K> {
        if Instant::now() >= deadline {
            return Err(SubmitError::Overloaded);
        }
        let running = self.run_here(Session::new(&self.direct), request);
        let answered = timeout_at(deadline, running).await;
        answered.unwrap_or(Err(SubmitError::TimedOut))
    }

    /// Runs the request alone, on the caller's thread and with a connection of its pool.
    async fn run_here(&self, mut session: Session, request: K::Request) -> Answered<K> {
        let began = Instant::now();
        let answered = run_alone::<K>(&mut session, request).await;
        self.metrics.observe(1, began);
        answered
    }
}
