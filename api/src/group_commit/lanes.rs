//! The thread that runs the lanes.

use std::{io, sync::Arc, time::Duration};

use shared::postgres::Database;
use tokio::{
    runtime::{self, Handle, Runtime},
    sync::Semaphore,
};

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

/// Number of kinds with their own lanes: reserve, confirm, cancel, extend and locate.
const KINDS: usize = 5;

/// Maximum number of locks that the requests of a process wait for at the same time.
///
/// Requests that would wait for a further lock get a 503 at once.
pub(super) const DETOURS_MAX: usize = 8;

/// Time for which requests wait for a lock: the usual lock timeout of a session.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The thread that runs the lanes, with its own connection pool.
///
/// Among the tasks that serve HTTP, each round trip of a transaction would wait until dozens of
/// those tasks had run, while the show stays locked.
pub(crate) struct Lanes {
    pub(super) limits: Limits,
    pub(super) database: Database,
    /// Database with the connection pool of the callers' threads.
    pub(super) direct: Database,
    pub(super) thread: Handle,
    pub(super) runtime: Option<Runtime>,
    /// Permits for detours, shared by all kinds of requests.
    pub(super) detours: Arc<Semaphore>,
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
