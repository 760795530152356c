//! Connection poolers in transaction mode, such as PgBouncer.
//!
//! Each transaction may get another session of the server.
//!
//! So no state may outlive a transaction, and an `api` runs every statement in one: a connection is
//! in a transaction from the moment the pool lends it until it is returned. The transaction begins
//! with the settings that a session would make once, and deallocates the statements that other
//! clients have prepared in that session under the names that ours will have.
//!
//! This transaction can only read. To write, a [`Session`](super::Session) begins another one,
//! because anything written in the first one would be rolled back.

use std::sync::LazyLock;

use sqlx::{
    Connection, Executor, PgConnection, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    citus::Engine,
    error::Error,
    settings::{self, LockTimeout},
    timeouts::{PING_TIMEOUT, within},
};

/// Whether the server, or a pooler in front of it, accepts no settings for a session.
///
/// PgBouncer reports `unsupported startup parameter`.
pub(super) fn refuses_settings(error: &sqlx::Error) -> bool {
    const PROTOCOL_VIOLATION: &str = "08P01";
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == PROTOCOL_VIOLATION)
}

/// Whether this connection, made with our settings, keeps one session of the server that has them.
///
/// Through a pooler, it uses whichever session is free.
///
/// # Errors
///
/// Fails if the server can't be queried.
pub(super) async fn keeps_sessions(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<bool, sqlx::Error> {
    let mut other = PgConnection::connect_with(options).await?;
    let (first, has_settings) = session(connection).await?;
    let (of_other, _) = session(&mut other).await?;
    let (again, _) = session(connection).await?;
    other.close().await?;
    Ok(has_settings && first == again && first != of_other)
}

/// Returns the session's process id, and whether the session has our settings.
async fn session(connection: &mut PgConnection) -> Result<(String, bool), sqlx::Error> {
    // Not prepared, because other clients may use the same session.
    let row = sqlx::raw_sql("SELECT pg_backend_pid()::text, current_setting('lock_timeout')")
        .fetch_one(connection)
        .await?;
    let lock_timeout: String = row.try_get(1)?;
    Ok((row.try_get(0)?, lock_timeout == settings::LOCK_TIMEOUT.1))
}

/// Returns the options of a pool whose connections lead through a pooler.
pub(super) fn pool_options(options: PgPoolOptions, texts: &'static Texts) -> PgPoolOptions {
    options
        .after_connect(move |connection, _| Box::pin(begin(connection, texts)))
        .before_acquire(move |connection, _| {
            Box::pin(
                async move { Ok(within(PING_TIMEOUT, begin(connection, texts)).await.is_ok()) },
            )
        })
        .after_release(|connection, _| {
            Box::pin(async move {
                let ended = within::<_, Error>(PING_TIMEOUT, async {
                    connection.execute("ROLLBACK").await?;
                    Ok(())
                });
                Ok(ended.await.is_ok())
            })
        })
}

async fn begin(connection: &mut PgConnection, texts: &'static Texts) -> Result<(), sqlx::Error> {
    connection.execute(texts.begin.as_str()).await?;
    Ok(())
}

/// Commands that begin transactions, each with the settings that a session would make once.
pub(super) struct Texts {
    /// Begins the transaction in which a connection is lent.
    begin: String,
    /// Ends that transaction, and begins one that can write.
    pub(super) begin_anew: String,
    /// Ends a transaction and begins the next one.
    pub(super) commit_and_chain: String,
}

impl Texts {
    fn new(settings: impl Iterator<Item = (&'static str, &'static str)>) -> Self {
        let settings: String = settings
            // Skips the settings of connections, and those that `BEGIN` itself makes.
            .filter(|(name, _)| !name.starts_with("tcp_") && !name.starts_with("default_"))
            .map(|(name, value)| format!("; SET LOCAL {name} = '{value}'"))
            .collect();
        Self {
            begin: format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY; DEALLOCATE ALL{settings}"
            ),
            begin_anew: format!(
                "ROLLBACK; BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE{settings}"
            ),
            commit_and_chain: format!("COMMIT AND CHAIN; DEALLOCATE ALL{settings}"),
        }
    }

    /// Returns the commands for a database engine and a lock timeout.
    pub(super) fn of(engine: Engine, lock_timeout: LockTimeout) -> &'static Self {
        static TEXTS: LazyLock<[[Texts; 2]; 2]> = LazyLock::new(|| {
            [&[][..], &settings::CITUS].map(|engine| {
                [&[][..], &[settings::SHORT_LOCK_TIMEOUT]].map(|lock_timeout| {
                    let of_all = settings::ALL.iter().chain(engine).chain(lock_timeout);
                    Texts::new(of_all.copied())
                })
            })
        });
        &TEXTS[usize::from(engine == Engine::Citus)]
            [usize::from(lock_timeout == LockTimeout::Short)]
    }
}
