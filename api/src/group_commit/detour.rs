//! Detours: requests whose lock somebody keeps wait for it apart from their lane, so that the lane goes on.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use futures_util::{FutureExt, future::BoxFuture};
use shared::{
    batch::Batch,
    booking::locks::{self, Lock, Missing},
    postgres::{self, Database, Session},
    telemetry,
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    Answered, Kind, Lanes, Member, PATIENCE, Sharing, Transaction, Unanswered, answer, run_batch,
};

/// Finds the lock that each request can't have now.
pub(crate) type FindMissing<Request> =
    for<'t> fn(&'t mut Session, &'t [Request]) -> BoxFuture<'t, Result<Missing, postgres::Error>>;

/// How many locks the requests of a process wait for at the same time. Requests for others are answered with 503 at once.
pub(super) const DETOURS_MAX: usize = 8;

/// The requests of one kind that wait for locks.
pub(super) struct Detours<Request, Answer> {
    transaction: Transaction<Request, Answer>,
    find_missing: FindMissing<Request>,
    sharing: Sharing,
    database: Database,
    /// Where they run.
    thread: Handle,
    /// Of all kinds.
    places: Arc<Semaphore>,
    /// The most requests that wait for one lock.
    queue_max: usize,
    waiting: Mutex<Waiting<Request, Answer>>,
    under_way: AtomicUsize,
}

/// By the lock that they wait for, in the order in which they came.
type Waiting<Request, Answer> = HashMap<Lock, VecDeque<Member<Request, Answer>>>;

impl<Request, Answer> Detours<Request, Answer>
where
    Request: Clone + Send + Sync + 'static,
    Answer: Send + 'static,
{
    pub(super) fn new(kind: &Kind<Request, Answer>, lanes: &Lanes, sharing: Sharing) -> Self {
        Self {
            transaction: kind.transaction,
            find_missing: kind.find_missing,
            sharing,
            database: lanes.database.clone(),
            thread: lanes.thread.clone(),
            places: lanes.detours.clone(),
            queue_max: lanes.limits.queue_max,
            waiting: Mutex::default(),
            under_way: AtomicUsize::new(0),
        }
    }

    /// Whether some requests wait for a lock: then a batch would wait for it too, if it had another one for the same.
    pub(super) fn are_under_way(&self) -> bool {
        self.under_way.load(SeqCst) > 0
    }

    /// Lets those whose lock somebody keeps wait for it, and returns the others, in their order.
    pub(super) async fn divert(
        self: &Arc<Self>,
        session: &mut Session,
        members: Vec<Member<Request, Answer>>,
    ) -> Vec<Member<Request, Answer>> {
        let missing = self.find_missing(session, &members).await;
        let mut rest = Vec::with_capacity(members.len());
        for (member, lock) in members.into_iter().zip(missing) {
            match lock {
                Some(lock) => self.let_wait(lock, member),
                None => rest.push(member),
            }
        }
        rest
    }

    async fn find_missing(
        &self,
        session: &mut Session,
        members: &[Member<Request, Answer>],
    ) -> Missing {
        if self.sharing == Sharing::SameKey {
            // Citus has no lock that is asked for on several servers, and there a batch is for one show.
            let lock = |member: &Member<Request, Answer>| Some(Lock::Show(member.caller.key));
            return members.iter().map(lock).collect();
        }
        let requests: Vec<Request> = members.iter().map(|m| m.request.clone()).collect();
        match (self.find_missing)(session, &requests).await {
            Ok(missing) => missing,
            Err(error) => {
                // They learn it from their transaction.
                tracing::debug!(error = telemetry::chain(&error), "cannot look for locks");
                vec![None; members.len()]
            }
        }
    }

    fn let_wait(self: &Arc<Self>, lock: Lock, member: Member<Request, Answer>) {
        let refused = match self.waiting().entry(lock) {
            Entry::Occupied(mut others) if others.get().len() < self.queue_max => {
                others.get_mut().push_back(member);
                return;
            }
            Entry::Occupied(_) => member,
            Entry::Vacant(first) => match self.places.clone().try_acquire_owned() {
                Ok(place) => {
                    first.insert(VecDeque::from([member]));
                    self.under_way.fetch_add(1, SeqCst);
                    self.thread.spawn(self.clone().run(lock, place));
                    return;
                }
                Err(_) => member,
            },
        };
        let _ = refused.caller.answer.send(Err(Unanswered::Overloaded));
    }

    /// Serves those who wait for this lock until nobody does.
    async fn run(self: Arc<Self>, lock: Lock, _place: OwnedSemaphorePermit) {
        // Those who came here had to; who comes meanwhile may find it free.
        let mut must_wait = true;
        while let Some(members) = self.next(lock) {
            let (requests, callers) = members.into_iter().map(|m| (m.request, m.caller)).unzip();
            // As in a lane, a panic loses these.
            let serving = AssertUnwindSafe(self.serve(lock, must_wait, requests));
            if let Ok(result) = serving.catch_unwind().await {
                must_wait = result.is_err();
                answer(callers, result, &self.thread);
            }
        }
        self.under_way.fetch_sub(1, SeqCst);
    }

    /// All who wait for this lock. When nobody does, the next one begins another detour.
    fn next(&self, lock: Lock) -> Option<Vec<Member<Request, Answer>>> {
        let mut waiting = self.waiting();
        let queue = waiting.get_mut(&lock)?;
        let members: Vec<_> = queue.drain(..).filter(|m| !m.caller.is_gone()).collect();
        if members.is_empty() {
            waiting.remove(&lock);
            return None;
        }
        Some(members)
    }

    /// Runs them; before that, or when they can't have the lock soon, waits for it and gives it back. With nothing else in hand meanwhile: who waited for a booking with its
    /// show locked would keep everybody from the show.
    async fn serve(
        &self,
        lock: Lock,
        mut must_wait: bool,
        requests: Vec<Request>,
    ) -> Result<Vec<Answered<Answer>>, postgres::Error> {
        let mut batch = Batch::of(requests);
        let began = Instant::now();
        loop {
            if must_wait {
                locks::wait(&mut Session::new(&self.database), lock).await?;
            }
            must_wait = true;
            let mut session = Session::new(&self.database).impatient();
            match run_batch(&mut session, self.transaction, &mut batch).await {
                // Somebody else was faster.
                Err(postgres::Error::Locked(_)) if began.elapsed() < PATIENCE => {}
                result => return result,
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<Request, Answer>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
