//! Errors that only the admin listener has, besides those of the API.

use axum::{
    http::StatusCode as S,
    response::{IntoResponse, Response},
};
use serde_json::json;
use shared::{
    booking::Refusal,
    postgres,
    queue::{JobState, control::Action},
};

use crate::output::{problem::Problem, problem_details::ProblemDetails};

/// Reason that a request was refused or failed.
#[derive(Debug)]
pub(super) enum AdminProblem {
    /// A problem that the API has as well.
    Common(Problem),
    /// No job has this id.
    JobNotFound,
    /// No queue has this name.
    QueueNotFound { queue: String },
    /// The state of the job does not allow the action.
    JobState { action: Action, state: JobState },
}

impl From<Problem> for AdminProblem {
    fn from(problem: Problem) -> Self {
        Self::Common(problem)
    }
}

impl From<postgres::Error> for AdminProblem {
    fn from(error: postgres::Error) -> Self {
        Self::Common(error.into())
    }
}

impl From<Refusal> for AdminProblem {
    fn from(refusal: Refusal) -> Self {
        Self::Common(refusal.into())
    }
}

impl IntoResponse for AdminProblem {
    fn into_response(self) -> Response {
        if !matches!(self, Self::Common(_)) {
            tracing::debug!(problem = ?self, "request refused");
        }
        let details = match self {
            Self::Common(problem) => return problem.into_response(),
            Self::JobNotFound => ProblemDetails::new(
                S::NOT_FOUND,
                "job-not-found",
                "Job not found",
                "There is no such job. Finished jobs are deleted after a while.",
            ),
            Self::QueueNotFound { queue } => ProblemDetails::new(
                S::NOT_FOUND,
                "queue-not-found",
                "Queue not found",
                format!("There is no queue {queue:?}."),
            )
            .with(json!({ "queue": queue })),
            Self::JobState { action, state } => ProblemDetails::new(
                S::CONFLICT,
                "job-state",
                "The job's state does not allow the action",
                format!(
                    "A job in state {} does not allow the action {}.",
                    state.name(),
                    action.name()
                ),
            )
            .with(json!({ "state": state })),
        };
        details.into_response()
    }
}
