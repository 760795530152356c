//! Running a batch, or its members one by one.

use std::sync::Arc;

use shared::{
    batch::Batch,
    postgres::{self, Session},
    telemetry,
};

use super::{
    kind::Kind,
    member::{Answered, SubmitError},
};

/// Runs a batch, or each member alone if the batch failed and one member may be the cause.
///
/// # Errors
///
/// Fails if no member was done, or if the outcome is unknown.
pub(super) async fn run_batch<K: Kind>(
    session: &mut Session,
    batch: &mut Batch<'_, K::Request>,
) -> Result<Vec<Answered<K>>, postgres::Error> {
    if batch.members().is_empty() {
        return Ok(Vec::new());
    }
    let result = K::run(session, batch).await;
    let requests = batch.members();
    match result {
        Ok(answers) => Ok(answers.into_iter().map(Ok).collect()),
        Err(error) if requests.len() > 1 && may_be_one_members_fault(&error) => {
            tracing::warn!(
                members = requests.len(),
                error = telemetry::chain(&error),
                "batch failed; running its members one by one"
            );
            let mut results = Vec::with_capacity(requests.len());
            for request in requests {
                results.push(run_alone::<K>(session, request.clone()).await);
            }
            Ok(results)
        }
        Err(error) => Err(error),
    }
}

/// Returns whether it helps, and is safe, to run the members of a failed batch one by one.
///
/// It does not help while the database is unavailable or a lock cannot be acquired, since each
/// member would wait for the same thing. It is never safe if the batch may have been committed.
fn may_be_one_members_fault(error: &postgres::Error) -> bool {
    match error {
        postgres::Error::Unexpected(_) | postgres::Error::RowCountMismatch { .. } => true,
        postgres::Error::Conflict(_)
        | postgres::Error::PartlyCommitted
        | postgres::Error::Locked(_)
        | postgres::Error::Unavailable(_)
        | postgres::Error::NeedsOperator(_)
        | postgres::Error::NotReady(_)
        | postgres::Error::Stale(_)
        | postgres::Error::OutcomeUnknown(_) => false,
    }
}

/// Runs a request in a transaction of its own.
pub(super) async fn run_alone<K: Kind>(session: &mut Session, request: K::Request) -> Answered<K> {
    let answers = K::run(session, &mut Batch::of(vec![request]))
        .await
        .map_err(|error| SubmitError::Failed(Arc::new(error)))?;
    answers.into_iter().next().ok_or(SubmitError::Lost)
}
