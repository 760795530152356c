//! The admin listener: metrics, queue administration, and a dashboard for operators.

mod cached;
mod dashboard;
mod jobs;
mod metrics;
mod overview;
mod poll;
mod problem;
mod queues;
mod state;
mod system;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use shared::{http::server::Bounds, postgres::Database};
use tokio_util::sync::CancellationToken;

use self::state::AdminState;
use crate::{config::MAX_BODY_BYTES, output::problem::Problem};

/// Default port of the admin listener.
pub(crate) const DEFAULT_PORT: u16 = 5001;

/// Limits of the listener: sized for Prometheus and a few operators with a dashboard each.
pub(crate) const BOUNDS: Bounds = Bounds {
    connections: 500,
    head: Duration::from_secs(20),
};

/// Maximum number of requests in flight.
pub(crate) const IN_FLIGHT_MAX: usize = 100;

/// Returns the routes of the admin listener, and polls the system until `stop` is cancelled.
pub(crate) fn router(api_database: &Database, stop: &CancellationToken) -> Router {
    let state = AdminState::new(api_database, IN_FLIGHT_MAX, stop);
    Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/overview", get(overview::overview))
        .route("/sales", get(system::sales))
        .route("/queues", get(queues::list))
        .route("/queues/{queue}/pause", post(queues::pause))
        .route("/queues/{queue}/resume", post(queues::resume))
        .route("/queues/{queue}/jobs", get(jobs::list))
        .route("/queues/{queue}/jobs/count", get(jobs::count))
        .route("/queues/{queue}/jobs/{action}", post(jobs::act_on_all))
        .route("/jobs/{id}", get(jobs::find))
        .route("/jobs/{id}/{action}", post(jobs::act))
        .route("/bookings/{id}", get(jobs::of_booking))
        .route("/workers", get(queues::workers))
        .route("/interventions", get(queues::interventions))
        .route("/database", get(system::database))
        .route("/audit", get(system::audit).post(system::start_audit))
        .merge(dashboard::pages())
        .fallback(async || Problem::NoSuchRoute)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .with_state(Arc::new(state))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES))
}
