//! Handlers of `/queues`, `/workers` and `/interventions`.

use std::sync::Arc;

use axum::{Json, extract::State};
use garde::Validate;
use serde::{Deserialize, Serialize};
use shared::queue::{
    control::{self, Intervention},
    inspect::{self, Queue, Worker},
};

use super::{problem::AdminProblem, state::AdminState};
use crate::{
    input::{
        caller::{Administer, Caller},
        url::{Path, Query},
    },
    output::{
        large_body::LargeBodyPermit,
        pagination::{DEFAULT_LIMIT, Page},
    },
};

pub(super) async fn list(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
) -> Result<Json<Vec<Queue>>, AdminProblem> {
    match state.poller.last() {
        Some(poll) => Ok(Json(poll.queues.clone())),
        None => Ok(Json(inspect::queues(&state.database.pool).await?)),
    }
}

/// Returns the name of a queue, if the queue exists.
pub(super) async fn known(state: &AdminState, name: String) -> Result<String, AdminProblem> {
    let has_it = |queues: &[Queue]| queues.iter().any(|queue| queue.name == name);
    let polled = state.poller.last();
    if polled.is_some_and(|poll| has_it(&poll.queues))
        || has_it(&inspect::queues(&state.database.pool).await?)
    {
        return Ok(name);
    }
    Err(AdminProblem::QueueNotFound { queue: name })
}

/// State of a queue after a pause or resume.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PauseOutcome {
    queue: String,
    is_paused: bool,
    /// Whether this request changed the state.
    changed: bool,
}

pub(super) async fn pause(
    caller: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
    Path(queue): Path<String>,
) -> Result<Json<PauseOutcome>, AdminProblem> {
    set(caller, &state, queue, true).await
}

pub(super) async fn resume(
    caller: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
    Path(queue): Path<String>,
) -> Result<Json<PauseOutcome>, AdminProblem> {
    set(caller, &state, queue, false).await
}

async fn set(
    caller: Caller<Administer>,
    state: &AdminState,
    queue: String,
    is_paused: bool,
) -> Result<Json<PauseOutcome>, AdminProblem> {
    let queue = known(state, queue).await?;
    let changed = control::pause(&state.database, &queue, is_paused, &caller.name()).await?;
    state.poller.poll_now();
    Ok(Json(PauseOutcome {
        queue,
        is_paused,
        changed,
    }))
}

pub(super) async fn workers(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
) -> Result<Json<Vec<Worker>>, AdminProblem> {
    Ok(Json(inspect::workers(&state.database.pool).await?))
}

#[derive(Debug, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListInterventions {
    /// Maximum number of interventions in a page; default 100.
    #[garde(inner(range(min = 1, max = 1000)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<i64>,
    /// Cursor from the header `Link` of the previous page.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<i64>,
}

pub(super) async fn interventions(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
    permit: LargeBodyPermit,
    Query(mut query): Query<ListInterventions>,
) -> Result<Page<Intervention>, AdminProblem> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let found = control::interventions(&state.database.pool, query.before, limit + 1).await?;
    Ok(Page::new(found, limit, "interventions", permit, |last| {
        query.before = Some(last.id);
        query
    }))
}
