//! Connection poolers in transaction mode, such as PgBouncer: each transaction may get another session of the server.
//!
//! So nothing may outlive a transaction, and whatever an `api` asks is asked in one: a connection of a pool is in a
//! transaction from the moment at which it is lent until it is given back. It begins with what a session would be asked
//! for once, and without the statements that others have prepared in that session under the names that ours will have.
//!
//! Such a transaction can only read, and a [`Session`](super::Session) begins another one to write: what is written by
//! the way would be rolled back.

use std::sync::LazyLock;

use anyhow::ensure;
use sqlx::{
    Connection, Executor, PgConnection, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    Database, Engine, Error, PING_TIMEOUT,
    settings::{self, Patience},
    within,
};

/// Whether the server, or what is before it, takes no settings for a session. PgBouncer: `unsupported startup parameter`.
pub(super) fn refuses_settings(error: &sqlx::Error) -> bool {
    const PROTOCOL_VIOLATION: &str = "08P01";
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == PROTOCOL_VIOLATION)
}

/// Whether this connection, made with our settings, is to one session of the server, which has them; and not to whichever
/// is free.
///
/// # Errors
///
/// When the server can't be asked.
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

/// The session's number, and whether it has our settings.
async fn session(connection: &mut PgConnection) -> Result<(String, bool), sqlx::Error> {
    // Not prepared: others may be in the same session.
    let row = sqlx::raw_sql("SELECT pg_backend_pid()::text, current_setting('lock_timeout')")
        .fetch_one(connection)
        .await?;
    let lock_timeout: String = row.try_get(1)?;
    Ok((row.try_get(0)?, lock_timeout == settings::LOCK_TIMEOUT.1))
}

/// Fails when there is one between this process and the server. `who` can't work with it.
///
/// # Errors
///
/// What to do about it.
pub fn ensure_none(database: &Database, who: &str) -> anyhow::Result<()> {
    ensure!(
        !database.is_pooled,
        "DATABASE_URL leads to a connection pooler that does not keep sessions, such as PgBouncer in transaction mode. \
         {who} needs sessions of its own, for locks that outlive transactions: give it the address of the server itself. \
         Only api works through a pooler"
    );
    Ok(())
}

/// Options of a pool behind one.
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

/// How transactions are begun, each with what a session would be asked for once.
pub(super) struct Texts {
    /// In which a connection is lent.
    begin: String,
    /// Ends that one, and begins one that writes.
    pub(super) begin_anew: String,
    /// Ends a transaction and begins the next one.
    pub(super) commit_and_chain: String,
}

impl Texts {
    fn new(settings: impl Iterator<Item = (&'static str, &'static str)>) -> Self {
        let settings: String = settings
            // Those of connections, and what `BEGIN` says by itself.
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

    /// For a database of this engine, and for statements with this patience.
    pub(super) fn of(engine: Engine, patience: Patience) -> &'static Self {
        static TEXTS: LazyLock<[[Texts; 2]; 2]> = LazyLock::new(|| {
            [&[][..], &settings::CITUS].map(|engine| {
                [&[][..], &[settings::IMPATIENT]].map(|patience| {
                    let of_all = settings::ALL.iter().chain(engine).chain(patience);
                    Texts::new(of_all.copied())
                })
            })
        });
        &TEXTS[usize::from(engine == Engine::Citus)][usize::from(patience == Patience::Short)]
    }
}
