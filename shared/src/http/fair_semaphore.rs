//! A semaphore whose permits callers share fairly.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Caller that a permit is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallerId {
    /// The API key with this id.
    Key(i64),
    /// A [network](super::proxies::network), for requests without a valid key.
    Network(IpAddr),
}

/// A semaphore that always keeps permits for callers that have none.
///
/// A caller gets another permit while it holds fewer than are free. One caller alone can hold half
/// of all permits, two can hold a third each. So no caller can take all of them, and an otherwise
/// idle server still gives most of its capacity to one.
#[derive(Debug)]
pub struct FairSemaphore {
    max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    /// Has no entry for a caller without permits, so that memory is bounded by `max`.
    by_caller: HashMap<CallerId, usize>,
}

impl FairSemaphore {
    /// Creates a semaphore with this many permits.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            held: Mutex::default(),
        })
    }

    /// Acquires a permit, which is returned when it is dropped.
    ///
    /// Returns none if this caller already holds `own_max` permits, or as many as are free.
    #[must_use]
    pub fn try_acquire(self: &Arc<Self>, caller: CallerId, own_max: usize) -> Option<Permit> {
        let mut held = self.lock();
        let free = self.max - held.total;
        let own = held.by_caller.entry(caller).or_default();
        if *own >= free.min(own_max) {
            if *own == 0 {
                held.by_caller.remove(&caller);
            }
            return None;
        }
        *own += 1;
        held.total += 1;
        Some(Permit {
            semaphore: self.clone(),
            caller,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A permit of a [`FairSemaphore`].
#[derive(Debug)]
pub struct Permit {
    semaphore: Arc<FairSemaphore>,
    caller: CallerId,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.semaphore.lock();
        held.total -= 1;
        if let Some(own) = held.by_caller.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                held.by_caller.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acquire_all(semaphore: &Arc<FairSemaphore>, caller: CallerId) -> Vec<Permit> {
        std::iter::from_fn(|| semaphore.try_acquire(caller, usize::MAX)).collect()
    }

    #[test]
    fn a_greedy_caller_leaves_permits_for_the_next_one() {
        let semaphore = FairSemaphore::new(100);
        let mut all = Vec::new();
        for (id, expected) in [(1, 50), (2, 25), (3, 13), (4, 6), (5, 3), (6, 2), (7, 1)] {
            let permits = acquire_all(&semaphore, CallerId::Key(id));
            assert_eq!(permits.len(), expected, "caller {id}");
            all.push(permits);
        }
        assert!(
            semaphore
                .try_acquire(CallerId::Key(8), usize::MAX)
                .is_none()
        );
        all.remove(0);
        assert!(
            semaphore
                .try_acquire(CallerId::Key(8), usize::MAX)
                .is_some()
        );
    }

    #[test]
    fn a_dropped_permit_leaves_no_trace_of_its_caller() {
        let semaphore = FairSemaphore::new(2);
        let permit = semaphore.try_acquire(CallerId::Network([127, 0, 0, 1].into()), 1);
        assert!(permit.is_some());
        drop(permit);
        let held = semaphore.lock();
        assert_eq!((held.total, held.by_caller.len()), (0, 0));
    }

    #[test]
    fn a_caller_gets_no_more_than_its_own_maximum() {
        let semaphore = FairSemaphore::new(10);
        let first = semaphore.try_acquire(CallerId::Key(1), 1);
        assert!(semaphore.try_acquire(CallerId::Key(1), 1).is_none());
        assert!(semaphore.try_acquire(CallerId::Key(2), 1).is_some());
        assert!(semaphore.try_acquire(CallerId::Key(3), 0).is_none());
        drop(first);
        assert!(semaphore.lock().by_caller.is_empty());
    }

    #[test]
    fn a_single_permit_can_be_acquired() {
        let semaphore = FairSemaphore::new(1);
        let permit = semaphore.try_acquire(CallerId::Key(1), 1);
        assert!(permit.is_some());
        assert!(semaphore.try_acquire(CallerId::Key(1), 1).is_none());
        assert!(semaphore.try_acquire(CallerId::Key(2), 1).is_none());
    }
}
