//! A transaction that is open, and the commands that begin and end it.

use sqlx::{Executor, PgConnection, Postgres, pool::PoolConnection};

use super::{database::Database, pooler, settings::LockTimeout};

/// An open transaction.
///
/// If it is dropped before its end was confirmed, because the caller is gone or the database does
/// not answer, its connection is closed: the state of the transaction is unknown.
#[derive(Debug)]
pub(crate) struct OpenTransaction {
    pub(super) connection: PoolConnection<Postgres>,
    commands: Commands,
    has_ended: bool,
}

/// Commands that begin and end transactions.
#[derive(Debug, Clone, Copy)]
struct Commands {
    begin: &'static str,
    /// Begins a transaction that only reads, and sees the database as it is now until its end.
    begin_snapshot: &'static str,
    /// Commits, and begins the next transaction.
    chain: &'static str,
    commit: &'static str,
    roll_back: &'static str,
}

impl Commands {
    const DIRECT: Self = Self {
        begin: "BEGIN",
        begin_snapshot: "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        chain: "COMMIT AND CHAIN",
        commit: "COMMIT",
        roll_back: "ROLLBACK",
    };

    const DIRECT_SHORT: Self = Self {
        begin: "BEGIN; SET LOCAL lock_timeout = '50ms'",
        chain: "COMMIT AND CHAIN; SET LOCAL lock_timeout = '50ms'",
        ..Self::DIRECT
    };

    fn of(database: &Database, lock_timeout: LockTimeout) -> Self {
        match (database.is_pooled, lock_timeout) {
            (true, _) => Self::through_pooler(pooler::Texts::of(database.engine, lock_timeout)),
            (false, LockTimeout::Usual) => Self::DIRECT,
            (false, LockTimeout::Short) => Self::DIRECT_SHORT,
        }
    }

    /// Returns the commands for a [`pooler`]: a connection is lent and returned in a transaction.
    fn through_pooler(texts: &'static pooler::Texts) -> Self {
        Self {
            begin: &texts.begin_anew,
            begin_snapshot: "ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            chain: &texts.commit_and_chain,
            commit: "COMMIT AND CHAIN",
            roll_back: "ROLLBACK AND CHAIN",
        }
    }
}

impl OpenTransaction {
    pub(super) async fn begin(
        database: &Database,
        lock_timeout: LockTimeout,
    ) -> Result<Self, sqlx::Error> {
        Self::begin_with(database, lock_timeout, |commands| commands.begin).await
    }

    /// Begins a transaction that only reads, and sees the database as it is now until its end.
    pub(crate) async fn snapshot(database: &Database) -> Result<Self, sqlx::Error> {
        let begin = |commands: &Commands| commands.begin_snapshot;
        Self::begin_with(database, LockTimeout::Usual, begin).await
    }

    async fn begin_with(
        database: &Database,
        lock_timeout: LockTimeout,
        command: fn(&Commands) -> &'static str,
    ) -> Result<Self, sqlx::Error> {
        let commands = Commands::of(database, lock_timeout);
        let mut open = Self {
            connection: database.pool.acquire().await?,
            commands,
            has_ended: false,
        };
        open.execute(command(&commands)).await?;
        Ok(open)
    }

    async fn execute(&mut self, command: &'static str) -> Result<(), sqlx::Error> {
        self.connection.execute(command).await?;
        Ok(())
    }

    /// Commits, and begins the next transaction.
    pub(super) async fn commit_and_chain(&mut self) -> Result<(), sqlx::Error> {
        let command = self.commands.chain;
        self.execute(command).await
    }

    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        let command = self.commands.commit;
        self.end(command).await
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    pub(crate) async fn roll_back(self) -> Result<(), sqlx::Error> {
        let command = self.commands.roll_back;
        self.end(command).await
    }

    /// Ends the transaction with this command, and returns its connection to the pool.
    async fn end(mut self, command: &'static str) -> Result<(), sqlx::Error> {
        self.execute(command).await?;
        self.has_ended = true;
        Ok(())
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        if !self.has_ended {
            self.connection.close_on_drop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_lock_timeout_is_as_long_with_and_without_a_transaction() {
        let set = format!(
            "SET LOCAL lock_timeout = '{}'",
            LockTimeout::Short.lock_timeout()
        );
        assert!(Commands::DIRECT_SHORT.begin.ends_with(&set));
        assert!(Commands::DIRECT_SHORT.chain.ends_with(&set));
    }
}
