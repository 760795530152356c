//! Open connections of a listener, and which one to close when there are too many.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, timeout},
};

use super::{proxies::network, timer::Timer};

/// Number of connections sampled to find one to close.
///
/// As in Redis, a sample comes close to the least recently used one.
const CANDIDATES: usize = 32;

/// Interval at which a new connection that waits for room searches again for an idle one to close.
const RETRY_EVERY: Duration = Duration::from_millis(50);

/// Open connections, at most `max`.
///
/// A new connection beyond that closes an idle one: of the network with the most connections, the
/// one that has been idle longest. A connection whose request head is incomplete counts as idle. So
/// an attacker that leaves its connections unused, or sends heads byte by byte, locks out no other
/// client.
pub(super) struct Connections {
    max: usize,
    open: Mutex<Open>,
    freed: Notify,
}

#[derive(Default)]
struct Open {
    all: Vec<Arc<Connection>>,
    by_network: HashMap<IpAddr, usize>,
}

/// An open connection. It is idle while no [`BusyGuard`] exists.
#[derive(Debug)]
pub struct Connection {
    network: IpAddr,
    /// Number of guards; [`EVICTED`] or more if the connection is being closed.
    busy: AtomicUsize,
    /// Arrival of the last request, in microseconds of [`since_start`].
    last_used: AtomicU64,
    /// Index in [`Open::all`].
    at: AtomicUsize,
    /// Handle that ends the task serving the connection.
    task: OnceLock<AbortHandle>,
    /// Timer for the timeouts of the connection and its requests.
    pub(super) timer: Timer,
}

/// Guard count of a connection that is being closed for another one.
const EVICTED: usize = usize::MAX / 2;

/// Keeps a [`Connection`] from being closed for another one.
#[derive(Debug)]
pub struct BusyGuard(Arc<Connection>);

impl Connection {
    /// Marks the connection as busy until the guard is dropped.
    ///
    /// Returns none if the connection is being closed: the request came too late to be served.
    #[must_use]
    pub fn busy(self: &Arc<Self>) -> Option<BusyGuard> {
        let guard = BusyGuard(self.clone());
        (self.busy.fetch_add(1, SeqCst) < EVICTED).then_some(guard)
    }

    /// Records the arrival of the last request.
    pub(super) fn used_at(&self, at: Instant) {
        self.last_used.store(since_start(at), Relaxed);
    }

    /// Registers the task that serves the connection.
    pub(super) fn served_by(&self, task: AbortHandle) {
        let _ = self.task.set(task);
    }

    fn is_idle(&self) -> bool {
        self.busy.load(Relaxed) == 0
    }

    /// Closes the connection if it is idle.
    fn evict(&self) {
        if let Some(task) = self.task.get()
            && self
                .busy
                .compare_exchange(0, EVICTED, SeqCst, SeqCst)
                .is_ok()
        {
            task.abort();
        }
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, SeqCst);
    }
}

/// Returns the microseconds from the first call of this function until `at`.
fn since_start(at: Instant) -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(at.duration_since(*START).as_micros()).unwrap_or(u64::MAX)
}

impl Connections {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            open: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Registers a connection of this peer as soon as there is room.
    pub(super) async fn open(self: &Arc<Self>, peer: IpAddr) -> Opened {
        loop {
            if let Some(opened) = self.try_open(peer) {
                return opened;
            }
            timeout(RETRY_EVERY, self.freed.notified()).await.ok();
        }
    }

    /// Registers a connection if there is room; otherwise closes an idle one and returns none.
    fn try_open(self: &Arc<Self>, peer: IpAddr) -> Option<Opened> {
        let mut open = self.lock();
        if open.all.len() >= self.max {
            if let Some(candidate) = open.eviction_candidate() {
                candidate.evict();
            }
            return None;
        }
        let network = network(peer.to_canonical());
        let connection = Arc::new(Connection {
            network,
            busy: AtomicUsize::new(0),
            last_used: AtomicU64::new(since_start(Instant::now())),
            at: AtomicUsize::new(open.all.len()),
            task: OnceLock::new(),
            timer: Timer::default(),
        });
        open.all.push(connection.clone());
        *open.by_network.entry(network).or_default() += 1;
        Some(Opened {
            connection,
            connections: self.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Selects the connection to close from a random sample; none if the whole sample is busy.
    fn eviction_candidate(&self) -> Option<&Arc<Connection>> {
        let count = self.all.len();
        let first = fastrand::usize(..count);
        (0..CANDIDATES.min(count))
            .map(|step| {
                // Few connections are all examined; of many, a random sample.
                let at = if count <= CANDIDATES {
                    (first + step) % count
                } else {
                    fastrand::usize(..count)
                };
                &self.all[at]
            })
            .filter(|connection| connection.is_idle())
            .max_by_key(|connection| {
                let siblings = self.by_network.get(&connection.network);
                (siblings, Reverse(connection.last_used.load(Relaxed)))
            })
    }

    fn remove(&mut self, connection: &Connection) {
        let at = connection.at.load(Relaxed);
        self.all.swap_remove(at);
        if let Some(moved) = self.all.get(at) {
            moved.at.store(at, Relaxed);
        }
        if let Some(siblings) = self.by_network.get_mut(&connection.network) {
            *siblings -= 1;
            if *siblings == 0 {
                self.by_network.remove(&connection.network);
            }
        }
    }
}

/// Registration of an open connection.
pub(super) struct Opened {
    pub(super) connection: Arc<Connection>,
    connections: Arc<Connections>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.connections.lock().remove(&self.connection);
        self.connections.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [203, 0, 113, last].into()
    }

    /// Opens a connection whose task ends only when the connection is closed for another one.
    fn open(connections: &Arc<Connections>, last: u8) -> Option<Arc<Connection>> {
        let opened = connections.try_open(address(last))?;
        let connection = opened.connection.clone();
        let task = tokio::spawn(async move {
            let _opened = opened;
            std::future::pending::<()>().await;
        });
        connection.served_by(task.abort_handle());
        Some(connection)
    }

    fn is_evicted(connection: &Connection) -> bool {
        connection.busy.load(SeqCst) >= EVICTED
    }

    #[tokio::test]
    async fn the_longest_idle_one_of_the_network_with_the_most_is_closed() {
        let connections = Connections::new(4);
        let all: Vec<_> = [1, 2, 2, 2]
            .into_iter()
            .filter_map(|last| open(&connections, last))
            .collect();
        let busy = all[1].busy();
        all[2].last_used.store(7, Relaxed);
        all[3].last_used.store(5, Relaxed);
        assert!(open(&connections, 3).is_none());
        let evicted: Vec<bool> = all
            .iter()
            .map(|connection| is_evicted(connection))
            .collect();
        assert_eq!(evicted, [false, false, false, true]);
        assert!(
            all[3].busy().is_none(),
            "a request that arrives now is not served"
        );
        drop(busy);
        while connections.lock().all.len() == 4 {
            tokio::task::yield_now().await;
        }
        let opened = connections.open(address(3)).await;
        assert_eq!(connections.lock().by_network[&address(2)], 2);
        for connection in &all[..3] {
            connection.evict();
        }
        drop(opened);
        while !connections.lock().all.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(connections.lock().by_network.is_empty());
    }

    #[tokio::test]
    async fn a_busy_one_is_not_closed_until_it_is_idle() {
        let connections = Connections::new(1);
        let first = open(&connections, 1).unwrap();
        let busy = first.busy();
        let second = connections.open(address(2));
        tokio::pin!(second);
        assert!(timeout(RETRY_EVERY * 3, &mut second).await.is_err());
        assert!(!is_evicted(&first));
        drop(busy);
        assert_eq!(second.await.connection.network, address(2));
    }
}
