//! Handlers of `/sales`, `/database` and `/audit`.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use shared::{
    audit::{self, Audit},
    postgres::{self, usage::Usage},
    sales::ShowSeats,
    telemetry::chain,
};

use super::{
    cached::{LastAudit, last},
    state::AdminState,
};
use crate::{
    input::caller::{Administer, Caller},
    output::problem::Problem,
};

pub(super) async fn sales(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
) -> Result<Json<Arc<Vec<ShowSeats>>>, Problem> {
    Ok(Json(state.cached.sales.get().await?))
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
        usage: state.cached.database.get().await?,
        pool: PoolUse {
            open: pool.size(),
            idle: pool.num_idle(),
            max: pool.options().get_max_connections(),
        },
    }))
}

pub(super) async fn audit(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
) -> Json<LastAudit> {
    Json(last(&state.cached.audit).clone())
}

/// Starts an audit in the background, unless one is running: it reads every booking.
pub(super) async fn start_audit(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
) -> (StatusCode, Json<LastAudit>) {
    let mut current = last(&state.cached.audit);
    if !current.is_running {
        current.is_running = true;
        let (database, audit) = (state.database.clone(), state.cached.audit.clone());
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
