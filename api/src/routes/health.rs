//! `/health`: for load balancers and orchestrators.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use shared::postgres;
use utoipa::ToSchema;

use crate::{AppState, problem::Problem};

/// How a server does.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// `live` or `ready`.
    #[schema(examples("ready"))]
    status: &'static str,
}

/// Whether the process answers
///
/// If it does not, restart it.
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "health",
    operation_id = "live",
    responses((status = OK, description = "It does.", body = Health)),
)]
pub(crate) async fn live() -> Json<Health> {
    Json(Health { status: "live" })
}

/// Whether the database answers too and has what is needed, and the process is not about to stop
///
/// If not, send requests elsewhere.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "health",
    operation_id = "ready",
    responses((status = OK, description = "It does.", body = Health)),
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
