//! Opening the connection pool of a database.

use std::{sync::Arc, time::Duration};

use futures_util::TryFutureExt;
use sqlx::{Connection, postgres::PgPoolOptions};

use super::{
    database::{Database, DatabaseArgs},
    password, pooler, primary, servers,
    settings::LockTimeout,
    statements,
    timeouts::{PING_TIMEOUT, TRUSTED_WHEN_IDLE, within},
};

/// Time that a request waits for a free connection before the database counts as not available.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a connection pool, after one connection that verifies the address.
///
/// If the URL names several servers, the pool leads to the one that accepts writes, also after a
/// failover.
///
/// A statement times out after 10 s and a wait for a lock after 2 s, so that no request outlives
/// its client for long and no lock is waited for without end.
///
/// # Errors
///
/// Fails if the URL is malformed, the password can't be read, or no database that accepts writes
/// can be reached.
pub async fn connect(args: &DatabaseArgs) -> anyhow::Result<Database> {
    let servers = servers::servers_of(args)?;
    // A pool would retry until its timeout, and in the end not report the reason.
    let (primary, connection) = primary::find_primary(&servers, CONNECT_TIMEOUT).await?;
    let options = PgPoolOptions::new()
        .max_connections(args.database_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false);
    let options = if primary.is_pooled {
        pooler::pool_options(
            options,
            pooler::Texts::of(primary.engine, LockTimeout::Usual),
        )
    } else {
        direct_options(options)
    };
    let database = Database {
        pool: options.connect_lazy_with(primary.options),
        engine: primary.engine,
        is_pooled: primary.is_pooled,
        last_write: Arc::default(),
    };
    if servers.len() > 1 {
        tokio::spawn(primary::follow(database.clone(), args.clone(), connection));
    } else {
        connection.close().await?;
    }
    if let Some(file) = &args.database_password_file {
        tokio::spawn(password::follow(database.pool.clone(), file.clone()));
    }
    Ok(database)
}

fn direct_options(options: PgPoolOptions) -> PgPoolOptions {
    options
        .after_connect(|connection, _| Box::pin(primary::ensure_takes_writes(connection)))
        // A ping for every acquisition would cost a busy process a round trip. But a connection
        // that was idle for a while may be broken, for example by a restart of the database.
        .before_acquire(|connection, usage| {
            Box::pin(async move {
                Ok(!statements::may_be_stale(usage.age)
                    && (usage.idle_for < TRUSTED_WHEN_IDLE
                        || within(PING_TIMEOUT, connection.ping()).await.is_ok()))
            })
        })
        // The caller may have gone away before the answer arrived. The pool would wait for that
        // answer, without end if the server's host vanished, and lend no other connection in its
        // place. If no answer is pending, this does nothing.
        .after_release(|connection, _| {
            Box::pin(within(PING_TIMEOUT, connection.flush()).map_ok(|()| true))
        })
}
