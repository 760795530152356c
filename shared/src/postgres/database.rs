//! A database, and its connection pools.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::ensure;
use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::time::sleep;

use super::{citus::Engine, last_write::LastWrite, settings};

/// Settings of the database connections.
#[derive(Debug, Clone, clap::Args)]
pub struct DatabaseArgs {
    /// URL of the PostgreSQL database, such as `postgres://user:password@host/ticketing`
    ///
    /// Of several servers, as in `postgres://user:password@one,two/ticketing`, the one that accepts
    /// writes is used, and another one when that changes.
    #[arg(long, env, value_name = "URL", hide_env_values = true)]
    pub database_url: String,

    /// File with the database password, instead of the URL; a trailing newline is ignored
    ///
    /// A new password in the file is used for new connections as soon as the database accepts it.
    #[arg(long, env, value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,

    /// Maximum number of connections in this process's pool
    ///
    /// In addition, an api opens four connections for each of its lanes (on Citus five) and up to
    /// eight while requests wait for locks. A worker opens three for the queue and one while it
    /// leads the janitors. With several servers, each process opens one more to watch the server in
    /// use.
    #[arg(long, env, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_connections: u32,
}

/// A database, and what was found out about it when the first connection was opened.
///
/// Engine and pooler are determined once. A server to which this process fails over later must be
/// reached in the same way.
#[derive(Debug, Clone)]
pub struct Database {
    /// Connection pool.
    pub pool: PgPool,
    /// Whether the database is distributed over several servers.
    pub engine: Engine,
    /// Whether the connections lead through a pooler, such as PgBouncer, that does not keep sessions.
    pub is_pooled: bool,
    /// Outcome of the last write, on any pool of this database.
    pub last_write: Arc<LastWrite>,
}

impl Database {
    /// Creates another pool on the same database, which follows failovers of the first one.
    ///
    /// Its connections are opened when they are needed.
    #[must_use]
    pub fn beside(&self, connections: u32) -> Self {
        self.open_beside(connections, PgConnectOptions::clone)
    }

    /// Creates another pool like [`beside`](Self::beside), for monitoring.
    ///
    /// It has few connections, so that monitoring takes none from sales, and its statements time
    /// out early.
    #[must_use]
    pub fn watching(&self) -> Self {
        if self.is_pooled {
            // A pooler takes no settings for sessions: each transaction brings its own.
            return self.beside(WATCHING_CONNECTIONS);
        }
        self.open_beside(WATCHING_CONNECTIONS, |options| {
            options.clone().options([("statement_timeout", "5s")])
        })
    }

    /// Creates another pool like [`beside`](Self::beside), for the queue's engine.
    ///
    /// The engine polls, sends heartbeats and acknowledges jobs.
    #[must_use]
    pub fn for_queue_engine(&self) -> Self {
        self.open_beside(QUEUE_ENGINE_CONNECTIONS, |options| {
            options.clone().options(settings::QUEUE_ENGINE)
        })
    }

    /// Fails if there is a pooler between this process and the server. `who` can't work with it.
    ///
    /// # Errors
    ///
    /// Fails with instructions if connections lead through a pooler.
    pub fn ensure_direct(&self, who: &str) -> anyhow::Result<()> {
        ensure!(
            !self.is_pooled,
            "DATABASE_URL points to a connection pooler that does not keep sessions, such as \
             PgBouncer in transaction mode. {who} needs sessions of its own, for locks that outlive \
             transactions: give it the address of the server itself. Only api works through a pooler"
        );
        Ok(())
    }

    fn open_beside(
        &self,
        connections: u32,
        adapt: fn(&PgConnectOptions) -> PgConnectOptions,
    ) -> Self {
        let followed = self.pool.connect_options();
        let options = self.pool.options().clone().max_connections(connections);
        let opened = options.connect_lazy_with(adapt(&followed));
        tokio::spawn(keep_beside(
            self.pool.clone(),
            opened.clone(),
            followed,
            adapt,
        ));
        Self {
            pool: opened,
            engine: self.engine,
            is_pooled: self.is_pooled,
            last_write: self.last_write.clone(),
        }
    }
}

const WATCHING_CONNECTIONS: u32 = 3;

/// Number of connections that a worker has for the queue's engine.
const QUEUE_ENGINE_CONNECTIONS: u32 = 3;

/// Interval at which other pools check whether to follow the first one to another server.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);

/// Leads new connections of `beside` to the server of `pool`, until `pool` is closed.
async fn keep_beside(
    pool: PgPool,
    beside: PgPool,
    mut followed: Arc<PgConnectOptions>,
    adapt: fn(&PgConnectOptions) -> PgConnectOptions,
) {
    let mut closed = pool.close_event();
    let follow = async {
        loop {
            sleep(FOLLOW_INTERVAL).await;
            let current = pool.connect_options();
            if !Arc::ptr_eq(&current, &followed) {
                beside.set_connect_options(adapt(&current));
                followed = current;
            }
        }
    };
    closed.do_until(follow).await.ok();
}
