//! Results of a bulk request, as clients see them.

use axum::http::StatusCode;
use serde::Serialize;
use shared::booking::reserve;
use utoipa::{
    ToSchema,
    openapi::{Ref, RefOr, Schema},
};

use super::{booking::BookingView, problem::Problem, problem_details::ProblemDetails};
use crate::group_commit::SubmitError;

/// Results of a bulk request.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BulkResults {
    /// A result for each booking, in the order of the request.
    #[schema(min_items = 1, max_items = 500)]
    pub(crate) results: Vec<BulkResult>,
}

/// Result of one of the bookings: what `POST /bookings` would have answered.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum BulkResult {
    /// The seats are held.
    Booked(BulkBooked),
    /// The booking was refused or failed.
    Refused(BulkRefused),
}

/// Result of a booking whose seats are held.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BulkBooked {
    /// Status code: 201.
    #[schema(minimum = 201, maximum = 201, examples(201))]
    status: u16,
    /// The booking. If it is `replayed`, this is its current state: check its `status`.
    booking: BookingView,
    /// True if an earlier request with the same key created the booking.
    #[schema(examples(false))]
    replayed: bool,
}

/// Result of a booking that was refused or that failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BulkRefused {
    /// Status code, as in `problem`.
    #[schema(minimum = 400, maximum = 599, examples(409))]
    status: u16,
    /// The problem.
    #[schema(schema_with = problem_schema)]
    problem: ProblemDetails,
}

/// Returns a reference to the schema of all problems, which no type has.
fn problem_schema() -> RefOr<Schema> {
    Ref::from_schema_name("Problem").into()
}

impl From<Result<reserve::Answer, SubmitError>> for BulkResult {
    fn from(answered: Result<reserve::Answer, SubmitError>) -> Self {
        let made = match answered {
            Ok(Ok(made)) => made,
            Ok(Err(refusal)) => return Problem::from(refusal).into(),
            Err(unanswered) => return Problem::from(unanswered).into(),
        };
        Self::Booked(BulkBooked {
            status: StatusCode::CREATED.as_u16(),
            booking: made.resource.into(),
            replayed: made.is_replay,
        })
    }
}

impl From<Problem> for BulkResult {
    fn from(problem: Problem) -> Self {
        let problem = problem.report();
        Self::Refused(BulkRefused {
            status: problem.status.as_u16(),
            problem,
        })
    }
}
