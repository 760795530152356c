//! Handlers of `/health`, for load balancers and orchestrators.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use shared::postgres;
use utoipa::ToSchema;

use crate::{output::problem::Problem, state::AppState};

/// Health of a server.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// `live` or `ready`.
    #[schema(examples("ready"))]
    status: &'static str,
}

/// Check liveness
///
/// Succeeds if the process answers. Restart it otherwise.
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "health",
    operation_id = "live",
    responses((status = OK, description = "The process is alive.", body = Health)),
)]
pub(crate) async fn live() -> Json<Health> {
    Json(Health { status: "live" })
}

/// Check readiness
///
/// Succeeds if the database answers and has all that the server needs, and the process is not about
/// to stop. Send requests to another server otherwise.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "health",
    operation_id = "ready",
    responses((status = OK, description = "The server is ready.", body = Health)),
)]
pub(crate) async fn ready(State(state): State<Arc<AppState>>) -> Result<Json<Health>, Problem> {
    if state.stop.is_cancelled() {
        return Err(Problem::Stopping);
    }
    match postgres::read(|| postgres::ready(&state.database)).await {
        Ok(()) => Ok(Json(Health { status: "ready" })),
        Err(error) if error.operators_reason().is_some() => Err(Problem::NotReady(error.into())),
        Err(error) => Err(error.into()),
    }
}
