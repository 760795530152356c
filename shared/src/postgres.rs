//! Connections, migrations, leadership, and which errors are worth a retry.

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
/// How long a connection may take to show that it still works; another one is tried then.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection may have been idle to be used without a test.
const TRUSTED_WHEN_IDLE: Duration = Duration::from_secs(1);

async fn within<T, E: From<sqlx::Error>>(
    limit: Duration,
    running: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(limit, running)
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()).into()))
}

/// Gives up what a database does not answer. A [transaction](Session::transact) does so by itself; this is for what happens
/// outside of one and that no client waits for, which would otherwise wait for a vanished host for a quarter of an hour.
///
/// # Errors
///
/// Those of `asking`; [`Error::Unavailable`] after 12 s.
pub async fn in_time<T>(asking: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    within(session::WORK_TIMEOUT, asking).await
}
