//! Handlers of `/sales`, `/database` and `/audit`.
//!
//! Their queries cost more than the periodic poll, so they run only on request.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Json, extract::State, http::StatusCode};
use futures_util::future::BoxFuture;
use serde::Serialize;
use shared::{
    audit::{self, Audit},
    postgres::{
        self,
        usage::{self, Usage},
    },
    sales::{self, ShowSeats},
    telemetry::chain,
};
use tokio::{sync::Mutex as AsyncMutex, time::Instant};

use super::{AdminState, watch::SHARE_OF_TIME};
use crate::{
    input::caller::{Administer, Caller},
    output::problem::Problem,
};

/// Cached results of these handlers.
pub(super) struct System {
    sales: Cached<Vec<ShowSeats>>,
    database: Cached<Usage>,
    audit: Arc<Mutex<LastAudit>>,
}

impl System {
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

/// Maximum number of shows in `/sales`.
const SHOWS: i64 = 50;

/// Minimum time for which a result is cached.
const KEPT: Duration = Duration::from_secs(1);

/// A query whose result is cached: the longer the query took, the longer.
struct Cached<T> {
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
    async fn get(&self) -> Result<Arc<T>, Problem> {
        let mut last = self.last.lock().await;
        if let Some((answer, until)) = &*last
            && Instant::now() < *until
        {
            return Ok(answer.clone());
        }
        let began = Instant::now();
        let answer = Arc::new((self.load)(self.source.clone()).await?);
        let kept = KEPT.max(began.elapsed() * SHARE_OF_TIME);
        *last = Some((answer.clone(), Instant::now() + kept));
        Ok(answer)
    }
}

pub(super) async fn sales(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
) -> Result<Json<Arc<Vec<ShowSeats>>>, Problem> {
    Ok(Json(state.system.sales.get().await?))
}

/// Usage of the database and of this process's connection pool.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Database {
    #[serde(flatten)]
    usage: Arc<Usage>,
    /// Connection pool of the API.
    pool: PoolUse,
}

#[derive(Serialize)]
struct PoolUse {
    open: u32,
    idle: usize,
    max: u32,
}

pub(super) async fn database(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
) -> Result<Json<Database>, Problem> {
    let pool = &state.api_pool;
    Ok(Json(Database {
        usage: state.system.database.get().await?,
        pool: PoolUse {
            open: pool.size(),
            idle: pool.num_idle(),
            max: pool.options().get_max_connections(),
        },
    }))
}

/// The last audit that this process started.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LastAudit {
    is_running: bool,
    /// Findings of the last audit; none if it failed or there was none.
    audit: Option<Audit>,
    /// Why the last audit could not run; none if it did.
    failure: Option<String>,
}

pub(super) async fn audit(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
) -> Json<LastAudit> {
    Json(last(&state.system.audit).clone())
}

fn last(audit: &Mutex<LastAudit>) -> std::sync::MutexGuard<'_, LastAudit> {
    audit.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts an audit in the background, unless one is running: it reads every booking.
pub(super) async fn start_audit(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
) -> (StatusCode, Json<LastAudit>) {
    let mut current = last(&state.system.audit);
    if !current.is_running {
        current.is_running = true;
        let (database, audit) = (state.database.clone(), state.system.audit.clone());
        tokio::spawn(async move {
            let result = audit::audit(&database, audit::DEFAULT_HOLD_LIMIT).await;
            *last(&audit) = ended(result);
        });
    }
    (StatusCode::ACCEPTED, Json(current.clone()))
}

fn ended(result: Result<Audit, postgres::Error>) -> LastAudit {
    let failure = result.as_ref().err().map(|error| {
        tracing::warn!(error = chain(error), "cannot run the audit");
        error.to_string()
    });
    LastAudit {
        is_running: false,
        audit: result.ok(),
        failure,
    }
}
