//! State that all handlers of the admin listener share.

use std::sync::Arc;

use axum::extract::FromRef;
use shared::postgres::Database;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::{cached::Caches, poll::Poller};
use crate::output::large_body::LargeBodies;

/// State of the admin listener.
pub(crate) struct AdminState {
    /// Connections for monitoring, apart from those of the API.
    pub(super) database: Database,
    /// Connection pool of the API, to report its use.
    pub(super) api_pool: PgPool,
    pub(super) poller: Arc<Poller>,
    pub(super) cached: Caches,
    /// Permits for lists, as in the API.
    large_bodies: LargeBodies,
}

impl AdminState {
    /// Polls the system until `stop` is cancelled. At most `lists_max` lists are in flight at the
    /// same time.
    pub(super) fn new(api_database: &Database, lists_max: usize, stop: &CancellationToken) -> Self {
        let database = api_database.watching();
        Self {
            poller: Poller::start(&database, stop),
            cached: Caches::new(&database),
            api_pool: api_database.pool.clone(),
            database,
            large_bodies: LargeBodies::new(lists_max),
        }
    }
}

impl FromRef<Arc<AdminState>> for LargeBodies {
    fn from_ref(state: &Arc<AdminState>) -> Self {
        state.large_bodies.clone()
    }
}
