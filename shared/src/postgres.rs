//! Connections, migrations, leadership, and which errors are worth a retry.

pub mod citus;
pub mod pooler;
mod servers;
mod session;
mod settings;
pub mod usage;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use futures_util::TryFutureExt;
use sqlx::{
    Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::{sleep, timeout};

pub(crate) use self::session::OpenTransaction;
pub use self::{
    citus::Engine,
    session::{Session, Work},
};
use crate::{jobs, queue::engine};

/// How a database call failed, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another transaction was in the way (serialization failure, deadlock, lock timeout, same unique key). Nothing was
    /// done; the same transaction may well succeed when it is run again.
    #[error("the transaction collided with another one")]
    Conflict(#[source] sqlx::Error),
    /// The database can't be reached, is starting or stopping, or has no connection left. Nothing was done.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The connection was lost during COMMIT: it may have been done or not. Never retried blindly.
    #[error("the connection was lost during COMMIT")]
    OutcomeUnknown(#[source] sqlx::Error),
    /// A defect of this program or of the data.
    #[error("unexpected database error")]
    Unexpected(#[source] sqlx::Error),
    /// A guarded statement touched another number of rows than was decided under the lock: a defect, and
    /// the transaction was rolled back.
    #[error("{what}: {expected} rows were to be written, {actual} were")]
    Drift {
        /// What was being written.
        what: &'static str,
        /// Rows that the decision named.
        expected: usize,
        /// Rows that the statement wrote.
        actual: u64,
    },
}

const STATEMENT_TIMEOUT: &str = "57014";

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        match (&error, code.as_deref()) {
            // 23505: another transaction wrote the same unique key at the same moment.
            (_, Some("40001" | "40P01" | "55P03" | "23505")) => Self::Conflict(error),
            // 57014: took too long; 25P03: was idle for too long, as when its host was suspended; 25006: the server takes
            // no writes any more; 57P01..57P03: shut down, crashed, starting; 53300: too many connections.
            (
                _,
                Some(STATEMENT_TIMEOUT | "25P03" | "25006" | "57P01" | "57P02" | "57P03" | "53300"),
            ) => Self::Unavailable(error),
            // 08: the connection.
            (_, Some(code)) if code.starts_with("08") => Self::Unavailable(error),
            _ if citus::lost_a_server(&error) => Self::Unavailable(error),
            (
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed,
                _,
            ) => Self::Unavailable(error),
            _ => Self::Unexpected(error),
        }
    }
}

impl Error {
    /// Whether running the same transaction again can help and can do no harm. A pool without a connection to
    /// give and a statement that took too long have already made their caller wait, and are not waited for twice.
    fn is_transient(&self) -> bool {
        match self {
            Self::Conflict(_) => true,
            Self::Unavailable(error) => !has_waited(error),
            Self::OutcomeUnknown(_) | Self::Unexpected(_) | Self::Drift { .. } => false,
        }
    }
}

fn has_waited(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut => true,
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::TimedOut,
        sqlx::Error::Database(error) => error.code().as_deref() == Some(STATEMENT_TIMEOUT),
        _ => false,
    }
}

/// Fails the transaction when a guarded statement did not write exactly what was decided.
///
/// # Errors
///
/// [`Error::Drift`].
pub fn expect_rows(what: &'static str, expected: usize, actual: u64) -> Result<(), Error> {
    if u64::try_from(expected) == Ok(actual) {
        return Ok(());
    }
    Err(Error::Drift {
        what,
        expected,
        actual,
    })
}

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

/// Answers when the database does.
///
/// # Errors
///
/// [`Error`].
pub async fn ping(pool: &PgPool) -> Result<(), Error> {
    sqlx::query!("SELECT 1 AS one").fetch_one(pool).await?;
    Ok(())
}

/// Where the database is.
#[derive(Debug, Clone, clap::Args)]
pub struct DatabaseArgs {
    /// The PostgreSQL database, such as `postgres://user:password@host/ticketing`
    ///
    /// Of several servers, as in `postgres://user:password@one,two/ticketing`, the one that takes writes is used, and
    /// another one when that changes.
    #[arg(long, env, value_name = "URL", hide_env_values = true)]
    pub database_url: String,

    /// A file with the password, so that it need not be in the URL; a newline at its end is no part of it
    #[arg(long, env, value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,

    /// The most connections that this process opens to it
    ///
    /// An api has four more for each of its lanes (on Citus five), a worker one more while it leads the janitors; with several servers each
    /// process has one more to watch the one in use.
    #[arg(long, env, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_connections: u32,
}

/// How long a request waits for a free connection before the database counts as not available.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the first connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may take to show that it still works; another one is tried then.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection may have been idle to be used without a test.
const TRUSTED_WHEN_IDLE: Duration = Duration::from_secs(1);

/// Opens a pool, after one connection that shows that the address is right.
///
/// Where the URL names several servers, it is the one that takes writes, whichever that is in the course of time.
///
/// A statement gives up after 10 s and a wait for a lock after 2 s, so that no request outlives its client for
/// long and no lock is waited for without end.
///
/// # Errors
///
/// When the URL is malformed, the password can't be read, or no database that takes writes can be connected to.
pub async fn connect(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    let password = args.database_password_file.as_deref().map(read_password);
    let servers = servers::parse(&args.database_url, password.transpose()?.as_deref())?;
    // A pool would try again and again, and in the end not tell why.
    let (primary, connection) = servers::find_primary(&servers, CONNECT_TIMEOUT).await?;
    let options = PgPoolOptions::new()
        .max_connections(args.database_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false);
    let options = if pooler::takes_settings(&primary.options) {
        direct_options(options)
    } else {
        pooler::pool_options(options, pooler::Texts::of(&primary.options))
    };
    let pool = options.connect_lazy_with(primary.options);
    if servers.len() > 1 {
        tokio::spawn(servers::follow(pool.clone(), servers, connection));
    } else {
        connection.close().await?;
    }
    Ok(pool)
}

fn read_password(file: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(file).with_context(|| {
        format!(
            "cannot read the database's password from {}",
            file.display()
        )
    })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn direct_options(options: PgPoolOptions) -> PgPoolOptions {
    options
        .after_connect(|connection, _| Box::pin(servers::ensure_takes_writes(connection)))
        // A ping for every acquisition would cost a busy process a round trip; a connection that was idle for a
        // while may have gone bad, though, such as by a restart of the database.
        .before_acquire(|connection, usage| {
            Box::pin(async move {
                Ok(usage.idle_for < TRUSTED_WHEN_IDLE
                    || within(PING_TIMEOUT, connection.ping()).await.is_ok())
            })
        })
        // Whoever asked may have gone away before the answer came. The pool would wait for it, without end if the server's
        // host vanished, and lend no other connection in its place. With nothing to wait for, this does nothing.
        .after_release(|connection, _| {
            Box::pin(within(PING_TIMEOUT, connection.flush()).map_ok(|()| true))
        })
}

/// Another pool on the same database, whichever server that is in the course of time. Its connections are opened when they are
/// needed.
#[must_use]
pub fn beside(pool: &PgPool, connections: u32) -> PgPool {
    open_beside(pool, connections, PgConnectOptions::clone)
}

/// As [`beside`], for those who watch: a few connections, so that looking takes none from selling, whose statements give up
/// soon.
#[must_use]
pub fn watching(pool: &PgPool) -> PgPool {
    open_beside(pool, WATCHING_CONNECTIONS, |options| {
        let options = options.clone();
        if pooler::takes_settings(&options) {
            options.options([("statement_timeout", "5s")])
        } else {
            options
        }
    })
}

const WATCHING_CONNECTIONS: u32 = 3;

/// As [`beside`], for the queue's engine: polls, heartbeats and acknowledgements.
#[must_use]
pub fn for_queue_engine(pool: &PgPool) -> PgPool {
    open_beside(pool, QUEUE_ENGINE_CONNECTIONS, |options| {
        options.clone().options(settings::QUEUE_ENGINE)
    })
}

/// How many connections a worker has for the queue's engine.
pub const QUEUE_ENGINE_CONNECTIONS: u32 = 3;

/// How soon other pools follow one to another server.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);

fn open_beside(
    pool: &PgPool,
    connections: u32,
    adapt: fn(&PgConnectOptions) -> PgConnectOptions,
) -> PgPool {
    let mut followed = pool.connect_options();
    let opened = pool
        .options()
        .clone()
        .max_connections(connections)
        .connect_lazy_with(adapt(&followed));
    let (pool, to_lead) = (pool.clone(), opened.clone());
    let mut closed = pool.close_event();
    tokio::spawn(async move {
        let follow = async {
            loop {
                sleep(FOLLOW_INTERVAL).await;
                let current = pool.connect_options();
                if !Arc::ptr_eq(&current, &followed) {
                    to_lead.set_connect_options(adapt(&current));
                    followed = current;
                }
            }
        };
        closed.do_until(follow).await.ok();
    });
    opened
}

/// The oldest server that the statements of this program are tested with.
const MIN_VERSION: i32 = 15;

/// Brings the schema up to date: apalis's tables first, then ours. Where the database has [Citus](citus), shows and bookings
/// are spread over its servers. Safe to run again, and by several processes at once, because each migrator holds an
/// advisory lock.
///
/// # Errors
///
/// When the server is too old, lacks an extension that apalis needs, or a migration fails.
pub async fn migrate(pool: &PgPool) -> anyhow::Result<()> {
    pooler::ensure_none(pool, "Migrating")?;
    check_server(pool).await?;
    let pool = &without_time_limits(pool).await?;
    jobs::migrate(pool)
        .await
        .context("cannot migrate the queue's tables (schema apalis)")?;
    sqlx::migrate!("../migrations")
        .run(pool)
        .await
        .context("cannot migrate the tables of ticketing")?;
    citus::spread(pool)
        .await
        .context("cannot spread the tables over the servers of Citus")?;
    // Last, since apalis's own migrations may have defined again what we replace.
    engine::apply(pool)
        .await
        .context("cannot adapt the queue's tables (schema apalis)")?;
    pool.close().await;
    Ok(())
}

/// A migration of a big table takes its time, and one process waits for another's to end.
async fn without_time_limits(pool: &PgPool) -> anyhow::Result<PgPool> {
    let options = pool.connect_options().as_ref().clone();
    Ok(PgPoolOptions::new()
        .max_connections(2)
        .connect_with(options.options([("statement_timeout", "0"), ("lock_timeout", "0")]))
        .await?)
}

async fn check_server(pool: &PgPool) -> anyhow::Result<()> {
    let server = sqlx::query!(
        r#"SELECT current_setting('server_version_num')::integer / 10000 AS "version!",
                  ARRAY(SELECT wanted FROM unnest(ARRAY['hstore', 'pgcrypto']) AS wanted
                        EXCEPT SELECT name FROM pg_available_extensions) AS "missing!: Vec<String>""#
    )
    .fetch_one(pool)
    .await
    .context("cannot ask the PostgreSQL server for its version")?;
    ensure!(
        server.version >= MIN_VERSION,
        "PostgreSQL {MIN_VERSION} or newer is needed, this server is {}",
        server.version,
    );
    ensure!(
        server.missing.is_empty(),
        "the PostgreSQL server lacks the extensions {}; they are in its contrib package (Debian: postgresql-contrib)",
        server.missing.join(", "),
    );
    Ok(())
}

/// The leader among processes that share a database: the one that holds an advisory lock. Its connection holds
/// the lock, so when the process dies, another one can lead at once.
#[derive(Debug)]
pub struct Leadership {
    connection: PgConnection,
}

impl Leadership {
    /// Takes the lead for `key`, unless another process has it.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn try_take(pool: &PgPool, key: i64) -> Result<Option<Self>, Error> {
        let mut connection = pool.acquire().await?.detach();
        let taken = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "taken!""#, key)
            .fetch_one(&mut connection)
            .await?;
        if taken {
            return Ok(Some(Self { connection }));
        }
        connection.close().await?;
        Ok(None)
    }

    /// Fails when the connection was lost, and the lead with it.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn check(&mut self) -> Result<(), Error> {
        Ok(within(PING_TIMEOUT, self.connection.ping()).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_file_has_no_newline_at_its_end() {
        let file = std::env::temp_dir().join(format!("ticketing-password-{}", std::process::id()));
        for written in ["p w", "p w\n", "p w\r\n"] {
            fs::write(&file, written).unwrap();
            assert_eq!(read_password(&file).unwrap(), "p w");
        }
        fs::remove_file(&file).unwrap();
        let error = read_password(&file).unwrap_err().to_string();
        assert!(error.contains("ticketing-password-"), "{error}");
    }
}
