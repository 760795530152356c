//! Selection of the server to use: of those that `DATABASE_URL` names, the one that accepts writes.

use std::{io, time::Duration};

use anyhow::{Context, anyhow, ensure};
use futures_util::{StreamExt, stream::FuturesUnordered};
use sqlx::{Connection, PgConnection, Row, postgres::PgConnectOptions};
use tokio::time::{sleep, timeout};

use super::{
    citus::{self, Engine},
    database::{Database, DatabaseArgs},
    error::Error,
    pooler,
    servers::{Server, servers_of},
    settings,
    timeouts::{PING_TIMEOUT, within},
};
use crate::telemetry;

/// The server to use, and how to connect to it.
#[derive(Debug, Clone)]
pub(super) struct Primary {
    pub(super) place: String,
    /// Connection options with our settings, unless a pooler in between does not accept them.
    pub(super) options: PgConnectOptions,
    pub(super) engine: Engine,
    pub(super) is_pooled: bool,
}

impl Primary {
    /// Returns true if engine and pooler are the same as for the first server.
    ///
    /// This process chose its statements by these.
    fn is_like(&self, database: &Database) -> bool {
        (self.engine, self.is_pooled) == (database.engine, database.is_pooled)
    }
}

/// Finds the server that accepts writes, and returns it with an open connection.
///
/// # Errors
///
/// Fails if there is none, with the reason for each server.
pub(super) async fn find_primary(
    servers: &[Server],
    limit: Duration,
) -> anyhow::Result<(Primary, PgConnection)> {
    let mut tried: FuturesUnordered<_> = servers.iter().map(|s| try_server(s, limit)).collect();
    let mut errors = Vec::new();
    while let Some(result) = tried.next().await {
        match result {
            Ok(found) => return Ok(found),
            Err(error) => errors.push(error),
        }
    }
    let only = if errors.len() == 1 {
        errors.pop()
    } else {
        None
    };
    Err(only.unwrap_or_else(|| {
        let reasons: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
        anyhow!(
            "no PostgreSQL server accepts writes: {}",
            reasons.join("; ")
        )
    }))
}

async fn try_server(server: &Server, limit: Duration) -> anyhow::Result<(Primary, PgConnection)> {
    let place = server.place();
    timeout(limit, async {
        let (primary, mut connection) = open(server)
            .await
            .with_context(|| format!("cannot connect to PostgreSQL at {place}"))?;
        ensure!(
            takes_writes(&mut connection).await?,
            "PostgreSQL at {place} accepts no writes: it is a standby"
        );
        check_encoding(&mut connection, &place).await?;
        Ok((primary, connection))
    })
    .await
    .with_context(|| format!("no answer from PostgreSQL at {place}"))?
}

async fn open(server: &Server) -> Result<(Primary, PgConnection), sqlx::Error> {
    let plain = server.options.clone().application_name("ticketing");
    let with_settings = plain.clone().options(settings::ALL);
    match PgConnection::connect_with(&with_settings).await {
        Ok(mut connection) => {
            if pooler::keeps_sessions(&mut connection, &with_settings).await? {
                return describe(server, with_settings, connection, false).await;
            }
        }
        Err(error) if pooler::refuses_settings(&error) => {}
        Err(error) => return Err(error),
    }
    let plain = plain.statement_cache_capacity(0).extra_float_digits(None);
    let connection = PgConnection::connect_with(&plain).await?;
    describe(server, plain, connection, true).await
}

async fn describe(
    server: &Server,
    options: PgConnectOptions,
    mut connection: PgConnection,
    is_pooled: bool,
) -> Result<(Primary, PgConnection), sqlx::Error> {
    let engine = citus::engine(&mut connection).await?;
    let options = match engine {
        // If a setting is given twice, the last value counts.
        Engine::Citus if !is_pooled => options.options(settings::CITUS),
        Engine::Citus | Engine::Postgres => options,
    };
    let primary = Primary {
        place: server.place(),
        options,
        engine,
        is_pooled,
    };
    Ok((primary, connection))
}

/// Fails unless the database is encoded in UTF-8.
///
/// Names can be in any language, and their characters are counted.
async fn check_encoding(connection: &mut PgConnection, place: &str) -> anyhow::Result<()> {
    // As text and not prepared, because the connection may lead through a pooler.
    let row = sqlx::raw_sql("SHOW server_encoding").fetch_one(connection);
    let encoding: String = row.await?.try_get(0)?;
    ensure!(
        encoding == "UTF8",
        "the database at {place} has the encoding {encoding}, but UTF8 is required: create another \
         database with `CREATE DATABASE ticketing ENCODING 'UTF8' TEMPLATE template0`, and move the \
         data with pg_dump"
    );
    Ok(())
}

/// Fails unless the server accepts writes.
///
/// # Errors
///
/// Fails if the server accepts no writes, or can't be queried.
pub(super) async fn ensure_takes_writes(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if takes_writes(connection).await? {
        return Ok(());
    }
    Err(sqlx::Error::Io(io::Error::other(
        "the server accepts no writes",
    )))
}

/// Returns true if the server accepts writes. A standby accepts none.
///
/// The database's `default_transaction_read_only` does not matter, because our sessions override
/// it.
async fn takes_writes(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // Not prepared, because the connection may lead through a pooler.
    sqlx::raw_sql("SELECT NOT pg_is_in_recovery()")
        .fetch_one(connection)
        .await?
        .try_get(0)
}

/// Interval at which the server in use is checked for accepting writes.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Timeout for checking whether one of several servers accepts writes.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);

/// Leads new connections of this pool to the server that accepts writes, until the pool is closed.
///
/// Connections to the previous server break by themselves. `connection` leads to the server that
/// accepts writes now.
pub(super) async fn follow(database: Database, args: DatabaseArgs, mut connection: PgConnection) {
    let following = async {
        loop {
            while matches!(
                within::<_, Error>(PING_TIMEOUT, async {
                    Ok(takes_writes(&mut connection).await?)
                })
                .await,
                Ok(true)
            ) {
                sleep(LOOK_INTERVAL).await;
            }
            tracing::warn!("the database server no longer accepts writes");
            let primary;
            (primary, connection) = find_again(&args, &database).await;
            tracing::info!(server = primary.place, "found the database server");
            database.pool.set_connect_options(primary.options);
        }
    };
    database.pool.close_event().do_until(following).await.ok();
}

async fn find_again(args: &DatabaseArgs, database: &Database) -> (Primary, PgConnection) {
    loop {
        let found = async {
            // Read again, because the password may have changed.
            find_primary(&servers_of(args)?, TRY_TIMEOUT).await
        };
        match found.await {
            Ok(found) if found.0.is_like(database) => return found,
            Ok((primary, _)) => tracing::error!(
                server = primary.place,
                "the database server is reached in another way than the previous one, such as \
                 through a connection pooler: restart this program"
            ),
            Err(error) => tracing::warn!(
                error = telemetry::chain(error.as_ref()),
                "found no database server that accepts writes"
            ),
        }
        sleep(LOOK_INTERVAL / 2).await;
    }
}
