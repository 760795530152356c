//! Detours: requests whose lock another session holds wait for it outside their lane.
//!
//! So the lane goes on with the other requests.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use futures_util::FutureExt;
use shared::{
    batch::Batch,
    booking::locks::{self, HeldLocks, Lock},
    id::ShowId,
    postgres::{self, Database, Session},
    telemetry,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    kind::{Kind, Sharing},
    lanes::{LOCK_TIMEOUT, Lanes},
    member::{Answered, Member, SubmitError, answer},
    run::run_batch,
};

/// Requests of one kind that wait for locks.
pub(super) struct Detours<K: Kind> {
    sharing: Sharing,
    database: Database,
    /// Runtime of the detours.
    thread: Handle,
    /// Permits for detours, shared by all kinds of requests.
    permits: Arc<Semaphore>,
    /// Maximum number of requests that wait for one lock.
    queue_max: usize,
    waiting: Mutex<Waiting<K>>,
    under_way: AtomicUsize,
}

/// Waiting requests by the lock that they need, in order of arrival.
type Waiting<K> = HashMap<Lock, VecDeque<Member<K>>>;

impl<K: Kind> Detours<K> {
    pub(super) fn new(lanes: &Lanes, sharing: Sharing) -> Self {
        Self {
            sharing,
            database: lanes.database.clone(),
            thread: lanes.thread.clone(),
            permits: lanes.detours.clone(),
            queue_max: lanes.limits.queue_max,
            waiting: Mutex::default(),
            under_way: AtomicUsize::new(0),
        }
    }

    /// Returns whether requests wait for a lock.
    ///
    /// If so, a batch with another request for the same lock would wait for it too.
    pub(super) fn are_under_way(&self) -> bool {
        self.under_way.load(SeqCst) > 0
    }

    /// Diverts requests whose lock another session holds, and returns the others in order.
    pub(super) async fn divert(
        self: &Arc<Self>,
        session: &mut Session,
        members: Vec<Member<K>>,
    ) -> Vec<Member<K>> {
        let missing = self.find_held_locks(session, &members).await;
        let mut rest = Vec::with_capacity(members.len());
        for (member, lock) in members.into_iter().zip(missing) {
            match lock {
                Some(lock) => self.let_wait(lock, member),
                None => rest.push(member),
            }
        }
        rest
    }

    async fn find_held_locks(&self, session: &mut Session, members: &[Member<K>]) -> HeldLocks {
        if self.sharing == Sharing::SameKey {
            // Citus cannot lock rows of several servers in a query; a batch is for one show there.
            let lock = |member: &Member<K>| Some(Lock::Show(ShowId(member.waiter.key)));
            return members.iter().map(lock).collect();
        }
        let requests: Vec<K::Request> = members.iter().map(|m| m.request.clone()).collect();
        match K::find_held_locks(session, &requests).await {
            Ok(missing) => missing,
            Err(error) => {
                // The requests get this error from their transaction.
                tracing::debug!(error = telemetry::chain(&error), "cannot check for locks");
                vec![None; members.len()]
            }
        }
    }

    fn let_wait(self: &Arc<Self>, lock: Lock, member: Member<K>) {
        let refused = match self.waiting().entry(lock) {
            Entry::Occupied(mut others) if others.get().len() < self.queue_max => {
                others.get_mut().push_back(member);
                return;
            }
            Entry::Occupied(_) => member,
            Entry::Vacant(first) => match self.permits.clone().try_acquire_owned() {
                Ok(permit) => {
                    first.insert(VecDeque::from([member]));
                    self.under_way.fetch_add(1, SeqCst);
                    self.thread.spawn(self.clone().run(lock, permit));
                    return;
                }
                Err(_) => member,
            },
        };
        let _ = refused.waiter.answer.send(Err(SubmitError::Overloaded));
    }

    /// Serves the requests that wait for this lock until none is left.
    async fn run(self: Arc<Self>, lock: Lock, _permit: OwnedSemaphorePermit) {
        // The first requests are here because the lock was held; later ones may find it free.
        let mut must_wait = true;
        while let Some(members) = self.next(lock) {
            let (requests, waiters) = members.into_iter().map(|m| (m.request, m.waiter)).unzip();
            // As in a lane, a panic loses this batch only.
            let serving = AssertUnwindSafe(self.serve(lock, must_wait, requests));
            if let Ok(result) = serving.catch_unwind().await {
                must_wait = result.is_err();
                answer(waiters, result, &self.thread);
            }
        }
        self.under_way.fetch_sub(1, SeqCst);
    }

    /// Takes all requests that wait for this lock.
    ///
    /// If there are none, the next request for it starts a new detour.
    fn next(&self, lock: Lock) -> Option<Vec<Member<K>>> {
        let mut waiting = self.waiting();
        let queue = waiting.get_mut(&lock)?;
        let members: Vec<_> = queue.drain(..).filter(|m| !m.waiter.is_gone()).collect();
        if members.is_empty() {
            waiting.remove(&lock);
            return None;
        }
        Some(members)
    }

    /// Runs the requests. Waits for the lock first if `must_wait`, and again whenever they cannot
    /// acquire it soon.
    ///
    /// The wait is a transaction of its own, which acquires this lock only and releases it: a
    /// transaction that waited for a booking with its show locked would block the whole show.
    async fn serve(
        &self,
        lock: Lock,
        mut must_wait: bool,
        requests: Vec<K::Request>,
    ) -> Result<Vec<Answered<K>>, postgres::Error> {
        let mut batch = Batch::of(requests);
        let began = Instant::now();
        loop {
            if must_wait {
                locks::wait(&mut Session::new(&self.database), lock).await?;
            }
            must_wait = true;
            let session = Session::new(&self.database);
            // For batches the transaction itself waits: see `Lock::BatchesOf`.
            let mut session = match lock {
                Lock::BatchesOf(_) => session,
                Lock::Show(_) | Lock::Booking { .. } => session.with_short_lock_timeout(),
            };
            match run_batch::<K>(&mut session, &mut batch).await {
                // Another session was faster.
                Err(postgres::Error::Locked(_)) if began.elapsed() < LOCK_TIMEOUT => {}
                result => return result,
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<K>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
