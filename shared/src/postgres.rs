//! PostgreSQL access: connections, migrations, leadership, and the errors that are worth a retry.

pub mod citus;
mod connect;
mod error;
mod leadership;
mod migrate;
mod password;
pub mod pooler;
mod ready;
mod servers;
mod session;
mod settings;
mod statements;
pub mod usage;

use std::{io, time::Duration};

use tokio::time::timeout;

pub(crate) use self::session::OpenTransaction;
pub use self::{
    citus::Engine,
    connect::{Database, DatabaseArgs, connect},
    error::{Error, expect_rows},
    leadership::Leadership,
    migrate::migrate,
    ready::{LastWrite, NotReady, ready},
    session::{Session, Work},
    statements::{forget as forget_statements, read},
};
/// Time that a connection has to show that it still works, before another one is tried.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// Idle time up to which a connection is used without a test.
const TRUSTED_WHEN_IDLE: Duration = Duration::from_secs(1);

async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    running: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(limit, running)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()).into()))
}

/// Gives up on a database call that is not answered within 12 s.
///
/// A [transaction](Session::transact) has timeouts of its own. This is for calls outside of one
/// that no client waits for: a call to a vanished host would otherwise wait for a quarter of an
/// hour.
///
/// # Errors
///
/// Fails with the error of `asking`, or with [`Error::Unavailable`] after 12 s.
pub async fn in_time<T>(asking: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    within(session::WORK_TIMEOUT, asking).await
}
