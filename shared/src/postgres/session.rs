//! Sessions: transactions one after the other, each retried when that can help and can do no harm.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use tokio::time::Instant;

use super::{
    citus::{self, Engine},
    database::Database,
    error::Error,
    open_transaction::OpenTransaction,
    settings::LockTimeout,
    timeouts::{PING_TIMEOUT, TRUSTED_WHEN_IDLE, WORK_TIMEOUT, within},
};
use crate::telemetry;

/// Runs transactions, one after the other.
#[derive(Debug)]
pub struct Session {
    database: Database,
    is_chained: bool,
    lock_timeout: LockTimeout,
    /// The next transaction, and when it was begun.
    next: Option<(OpenTransaction, Instant)>,
}

/// Work of a transaction: reads and writes, and neither COMMIT nor ROLLBACK.
///
/// It is a trait, since no bound can say that the future of an async closure is `Send`.
pub trait Work: Send {
    /// Result of the work, if the transaction commits.
    type Output: Send;

    /// Does the work in this transaction, anew for each attempt.
    ///
    /// # Errors
    ///
    /// Fails if the transaction must be rolled back.
    fn run(
        &mut self,
        tx: &mut PgConnection,
    ) -> impl Future<Output = Result<Self::Output, Error>> + Send;
}

impl Session {
    /// Creates a session that takes a connection of this database's pool for each transaction.
    #[must_use]
    pub fn new(database: &Database) -> Self {
        Self {
            database: database.clone(),
            is_chained: false,
            lock_timeout: LockTimeout::Usual,
            next: None,
        }
    }

    /// Creates a session whose transactions each begin with the COMMIT of the one before.
    ///
    /// They use the same connection. That saves each of them two round trips: BEGIN, and the pool's
    /// check whether a returned connection still works.
    ///
    /// So `now()`, the start of the transaction, may be long ago. [Rest](Self::rest) the session
    /// when there is nothing to do.
    #[must_use]
    pub fn chained(database: &Database) -> Self {
        Self {
            is_chained: true,
            ..Self::new(database)
        }
    }

    /// Sets the lock timeout to 50 ms instead of 2 s, for callers that have other work to do.
    #[must_use]
    pub fn with_short_lock_timeout(self) -> Self {
        Self {
            lock_timeout: LockTimeout::Short,
            ..self
        }
    }

    /// Returns the connection to the pool.
    ///
    /// A transaction that is open and does nothing alarms operators who monitor the database.
    pub async fn rest(&mut self) {
        if let Some((next, _)) = self.next.take() {
            within(PING_TIMEOUT, next.roll_back()).await.ok();
        }
    }

    /// Returns the pool, for reads that need no transaction.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    /// Whether a statement on the [pool](Self::pool) is a transaction by itself, of all its rows.
    ///
    /// It is not on Citus, and not through a [pooler](super::pooler).
    pub(crate) fn commits_each_statement(&self) -> bool {
        self.database.engine == Engine::Postgres && !self.database.is_pooled
    }

    /// Returns the lock timeout of its statements, as a value of PostgreSQL's setting of that name.
    pub(crate) fn lock_timeout(&self) -> &'static str {
        self.lock_timeout.lock_timeout()
    }

    pub(crate) fn engine(&self) -> Engine {
        self.database.engine
    }

    /// Runs `work` in a transaction, and retries it if it is aborted for a transient reason.
    ///
    /// # Errors
    ///
    /// Fails with the error of the last attempt. Nothing was done then, except for
    /// [`Error::OutcomeUnknown`].
    pub async fn transact<W: Work>(&mut self, mut work: W) -> Result<W::Output, Error> {
        let mut attempt = 1;
        loop {
            let error = match Box::pin(self.try_transact(&mut work)).await {
                Err(error) if error.is_transient() && attempt < ATTEMPTS => error,
                result => return result,
            };
            tracing::warn!(
                attempt,
                error = telemetry::chain(&error),
                "retrying the transaction"
            );
            // Lets the other side of a conflict finish first: 5, 10, 20 ms.
            tokio::time::sleep(Duration::from_millis(5 << (attempt - 1))).await;
            attempt += 1;
        }
    }

    async fn try_transact<W: Work>(&mut self, work: &mut W) -> Result<W::Output, Error> {
        let (mut open, output) = within(WORK_TIMEOUT, self.begin_and_run(work)).await?;
        if self.is_chained {
            let chained = within(COMMIT_TIMEOUT, open.commit_and_chain());
            chained.await.map_err(commit_error)?;
            self.next = Some((open, Instant::now()));
        } else {
            let ended = within(COMMIT_TIMEOUT, open.commit());
            ended.await.map_err(commit_error)?;
        }
        self.database.last_write.succeeded();
        Ok(output)
    }

    async fn begin_and_run<W: Work>(
        &mut self,
        work: &mut W,
    ) -> Result<(OpenTransaction, W::Output), Error> {
        // Separate, so that a transaction that waited for too long returns its connection before
        // another one is acquired.
        let next = self
            .next
            .take()
            .filter(|(_, since)| since.elapsed() < TRUSTED_WHEN_IDLE);
        let mut open = match next {
            Some((open, _)) => open,
            None => OpenTransaction::begin(&self.database, self.lock_timeout).await?,
        };
        match work.run(&mut open.connection).await {
            Ok(output) => Ok((open, output)),
            Err(error) => {
                self.database.last_write.refused(&error);
                open.roll_back().await.ok();
                Err(error)
            }
        }
    }
}

/// Timeout of a COMMIT.
///
/// It is shorter than the statement timeout, because a COMMIT that waits for a synchronous standby
/// does not fail at that timeout: the database would report it as done, and a failover could undo
/// it.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(7);

/// Number of attempts before a transaction's transient error is returned.
const ATTEMPTS: u32 = 4;

/// Distinguishes a COMMIT that failed from one whose outcome is unknown.
///
/// A transaction is certainly not committed only if the database rejected the COMMIT, for another
/// reason than that it, or with Citus another server, is going away.
fn commit_error(error: sqlx::Error) -> Error {
    let refused = error
        .as_database_error()
        .is_some_and(|error| error.code().as_deref() != Some(citus::INTERNAL_ERROR));
    match Error::from(error) {
        error @ (Error::Conflict(_)
        | Error::Locked(_)
        | Error::Unexpected(_)
        | Error::NeedsOperator(_)
        | Error::NotReady(_)
        | Error::Stale(_))
            if refused =>
        {
            error
        }
        Error::Conflict(error)
        | Error::Locked(error)
        | Error::Unavailable(error)
        | Error::NeedsOperator(error)
        | Error::Stale(error)
        | Error::Unexpected(error) => Error::OutcomeUnknown(error),
        error @ (Error::OutcomeUnknown(_)
        | Error::NotReady(_)
        | Error::PartlyCommitted
        | Error::RowCountMismatch { .. }) => error,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_commit_without_a_clear_no_has_an_unknown_outcome() {
        for lost in [
            sqlx::Error::Io(io::ErrorKind::UnexpectedEof.into()),
            sqlx::Error::Protocol("cut off".into()),
            sqlx::Error::PoolClosed,
        ] {
            let error = commit_error(lost);
            assert!(matches!(error, Error::OutcomeUnknown(_)), "{error:?}");
            assert!(!error.is_transient(), "it is never retried");
        }
    }
}
