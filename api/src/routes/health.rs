//! `/health`: for load balancers and orchestrators.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};
use shared::postgres;

use crate::{AppState, problem::Problem};

/// `GET /health/live`: the process answers. If it does not, restart it.
pub(crate) async fn live() -> Json<Value> {
    Json(json!({ "status": "live" }))
}

/// `GET /health/ready`: the database answers too. If it does not, send requests elsewhere.
pub(crate) async fn ready(State(state): State<Arc<AppState>>) -> Result<Json<Value>, Problem> {
    postgres::ping(&state.pool).await?;
    Ok(Json(json!({ "status": "ready" })))
}
