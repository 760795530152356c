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
    Connection, Executor, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{Engine, Error, PING_TIMEOUT, settings, within};

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

/// Whether there is one between this pool and the server.
pub(super) fn is_before(pool: &PgPool) -> bool {
    !takes_settings(&pool.connect_options())
}

/// Whether these lead to a server that takes settings for a session.
pub(super) fn takes_settings(options: &PgConnectOptions) -> bool {
    options.get_options().is_some()
}

/// Fails when there is one between this pool and the server. `who` can't work with it.
///
/// # Errors
///
/// What to do about it.
pub fn ensure_none(pool: &PgPool, who: &str) -> anyhow::Result<()> {
    ensure!(
        !is_before(pool),
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
            .filter(|(name, _)| !name.starts_with("tcp_"))
            .map(|(name, value)| format!("; SET LOCAL {name} = '{value}'"))
            .collect();
        Self {
            begin: format!("BEGIN READ ONLY; DEALLOCATE ALL{settings}"),
            begin_anew: format!("ROLLBACK; BEGIN{settings}"),
            commit_and_chain: format!("COMMIT AND CHAIN; DEALLOCATE ALL{settings}"),
        }
    }

    /// For the server that these lead to.
    pub(super) fn of(options: &PgConnectOptions) -> &'static Self {
        static USUAL: LazyLock<Texts> = LazyLock::new(|| Texts::new(settings::ALL.into_iter()));
        static CITUS: LazyLock<Texts> =
            LazyLock::new(|| Texts::new(settings::ALL.into_iter().chain(settings::CITUS)));
        match Engine::meant_by(options) {
            Engine::Postgres => &USUAL,
            Engine::Citus => &CITUS,
        }
    }
}
