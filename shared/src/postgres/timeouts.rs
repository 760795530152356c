//! Timeouts of database calls.

use std::{io, time::Duration};

use tokio::time::timeout;

use super::error::Error;

/// Time that a connection has to show that it still works, before another one is tried.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Idle time up to which a connection is used without a test.
pub(super) const TRUSTED_WHEN_IDLE: Duration = Duration::from_secs(1);

/// Timeout of a transaction without its COMMIT.
///
/// A statement takes 10 s at most. Beyond that, the database or the network to it has gone silent,
/// which a connection by itself would notice after a quarter of an hour.
pub(super) const WORK_TIMEOUT: Duration = Duration::from_secs(12);

/// Fails with a timeout of the operating system after `limit`.
pub(super) async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    running: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(limit, running)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()).into()))
}

/// Gives up on a database call that is not answered within 12 s.
///
/// A [transaction](super::Session::transact) has timeouts of its own. This is for calls outside of one
/// that no client waits for: a call to a vanished host would otherwise wait for a quarter of an
/// hour.
///
/// # Errors
///
/// Fails with the error of `asking`, or with [`Error::Unavailable`] after 12 s.
pub async fn in_time<T>(asking: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    within(WORK_TIMEOUT, asking).await
}
