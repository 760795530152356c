//! Waiting for a database that has what a worker needs.

use std::time::Duration;

use shared::postgres::{self, Database, in_time};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Outcome of waiting for a database.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// The database was ready at once.
    AtOnce,
    /// The database was not ready before.
    AfterAWait,
    /// The worker was told to stop.
    Stopped,
}

/// Interval at which a database that is not ready is checked again.
const READY_INTERVAL: Duration = Duration::from_secs(1);

/// Waits while the database lacks what a worker needs, such as the schema, and logs the reason.
///
/// A database that is not available or does not admit the worker is left to the consumer, which
/// gives up at last.
pub(crate) async fn until_ready(database: &Database, stop: &CancellationToken) -> Ready {
    let waiting = async {
        let mut said = None;
        while let Err(postgres::Error::NotReady(reason)) = in_time(postgres::ready(database)).await
        {
            let reason = reason.to_string();
            if said.as_ref() != Some(&reason) {
                tracing::warn!(reason, "the database is not ready, waiting for it");
                said = Some(reason);
            }
            sleep(READY_INTERVAL).await;
        }
        match said {
            Some(_) => Ready::AfterAWait,
            None => Ready::AtOnce,
        }
    };
    stop.run_until_cancelled(waiting)
        .await
        .unwrap_or(Ready::Stopped)
}
