//! Queries that cost more than the periodic poll: they run only on request, and are cached.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde::Serialize;
use shared::{
    audit::Audit,
    postgres::{
        self,
        usage::{self, Usage},
    },
    sales::{self, ShowSeats},
};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};

use super::poll::PAUSE_RATIO;
use crate::output::problem::Problem;

/// Maximum number of shows in `/sales`.
const SHOWS: i64 = 50;

/// Minimum time for which a result is cached.
const KEPT: Duration = Duration::from_secs(1);

/// Cached results.
pub(super) struct Caches {
    pub(super) sales: Cached<Vec<ShowSeats>>,
    pub(super) database: Cached<Usage>,
    pub(super) audit: Arc<Mutex<LastAudit>>,
}

impl Caches {
    pub(super) fn new(database: &postgres::Database) -> Self {
        Self {
            sales: Cached::new(database, |database| {
                Box::pin(async move { sales::shows(&database.pool, SHOWS).await })
            }),
            database: Cached::new(database, |database| {
                Box::pin(async move { usage::usage(&database).await })
            }),
            audit: Arc::default(),
        }
    }
}

/// A query whose result is cached: the longer the query took, the longer.
pub(super) struct Cached<T> {
    source: postgres::Database,
    load: fn(postgres::Database) -> BoxFuture<'static, Result<T, postgres::Error>>,
    last: AsyncMutex<Option<(Arc<T>, Instant)>>,
}

impl<T> Cached<T> {
    fn new(
        source: &postgres::Database,
        load: fn(postgres::Database) -> BoxFuture<'static, Result<T, postgres::Error>>,
    ) -> Self {
        Self {
            source: source.clone(),
            load,
            last: AsyncMutex::default(),
        }
    }

    /// Returns the cached result, or runs the query if it has expired.
    ///
    /// Callers that arrive while the query runs wait for its result.
    pub(super) async fn get(&self) -> Result<Arc<T>, Problem> {
        let mut last = self.last.lock().await;
        if let Some((answer, until)) = &*last
            && Instant::now() < *until
        {
            return Ok(answer.clone());
        }
        let began = Instant::now();
        let answer = Arc::new((self.load)(self.source.clone()).await?);
        let kept = KEPT.max(began.elapsed() * PAUSE_RATIO);
        *last = Some((answer.clone(), Instant::now() + kept));
        Ok(answer)
    }
}

/// The last audit that this process started.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LastAudit {
    pub(super) is_running: bool,
    /// Findings of the last audit; none if it failed or there was none.
    pub(super) audit: Option<Audit>,
    /// Why the last audit could not run; none if it did.
    pub(super) failure: Option<String>,
}

/// Returns the last audit.
pub(super) fn last(audit: &Mutex<LastAudit>) -> std::sync::MutexGuard<'_, LastAudit> {
    audit.lock().unwrap_or_else(PoisonError::into_inner)
}
