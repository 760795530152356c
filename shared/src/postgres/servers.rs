//! Selection of the server to use: of those that `DATABASE_URL` names, the one that accepts writes.

use std::{borrow::Cow, io, time::Duration};

use anyhow::{Context, anyhow, bail, ensure};
use form_urlencoded::Serializer;
use futures_util::{StreamExt, stream::FuturesUnordered};
use sqlx::{Connection, PgConnection, Row, postgres::PgConnectOptions};
use tokio::time::{sleep, timeout};

use super::{
    citus::{self, Engine},
    database::{Database, DatabaseArgs},
    error::Error,
    password, pooler, settings,
    timeouts::{PING_TIMEOUT, within},
};
use crate::telemetry;

/// A server, or a pooler in front of one.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// Connection options without our settings.
    options: PgConnectOptions,
}

impl Server {
    /// Returns host and port, for messages: without user and password.
    pub(super) fn place(&self) -> String {
        let port = self.options.get_port();
        match self.options.get_socket() {
            Some(socket) => format!("{}:{port}", socket.display()),
            None => format!("{}:{port}", self.options.get_host()),
        }
    }
}

/// Returns the configured servers, with the password that is in its file now.
///
/// # Errors
///
/// Fails if the URL is malformed, or the password can't be read.
pub(super) fn servers_of(args: &DatabaseArgs) -> anyhow::Result<Vec<Server>> {
    let password = args.database_password_file.as_deref().map(password::read);
    parse(&args.database_url, password.transpose()?.as_deref())
}

/// Parses a URL as PostgreSQL's own programs do.
///
/// It is `postgres://user@one:5432,two:5432/db` or `postgres:///db?host=one,two&port=5432,5433`,
/// each with or without `target_session_attrs`.
///
/// # Errors
///
/// Fails if it is not such a URL, or asks for servers that accept no writes.
fn parse(url: &str, password: Option<&str>) -> anyhow::Result<Vec<Server>> {
    let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
    ensure!(
        ["postgres", "postgresql"].contains(&scheme),
        "DATABASE_URL is not a PostgreSQL URL: it begins with neither postgres:// nor postgresql://"
    );
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let hosts_begin = authority.rfind('@').map_or(0, |at| at + 1);
    let (user, hosts) = authority.split_at(hosts_begin);

    let mut parameters: Vec<(Cow<'_, str>, Cow<'_, str>)> =
        form_urlencoded::parse(query.as_bytes()).collect();
    check_target(&parameters)?;
    parameters.retain(|(name, _)| name != TARGET);
    let lists = |(name, values): &(Cow<'_, str>, Cow<'_, str>)| {
        ["host", "port"].contains(&name.as_ref()) && values.contains(',')
    };
    let count = parameters
        .iter()
        .filter(|parameter| lists(parameter))
        .map(|(_, values)| values.split(',').count())
        .chain([hosts.split(',').count()])
        .max()
        .unwrap_or(1);
    (0..count)
        .map(|index| {
            let host = nth(hosts, index, count)?;
            let mut query = Serializer::new(String::new());
            for parameter in &parameters {
                let (name, values) = parameter;
                let value = if lists(parameter) {
                    nth(values, index, count)?
                } else {
                    values
                };
                query.append_pair(name, value);
            }
            let url = format!("{scheme}://{user}{host}{path}?{}", query.finish());
            let options = url
                .parse::<PgConnectOptions>()
                .context("DATABASE_URL is not a PostgreSQL URL")?;
            Ok(Server {
                options: match password {
                    Some(password) => options.password(password),
                    None => options,
                },
            })
        })
        .collect()
}

const TARGET: &str = "target_session_attrs";

fn check_target(parameters: &[(Cow<'_, str>, Cow<'_, str>)]) -> anyhow::Result<()> {
    for (_, target) in parameters.iter().filter(|(name, _)| name == TARGET) {
        ensure!(
            ["read-write", "primary", "any"].contains(&target.as_ref()),
            "DATABASE_URL has {TARGET}={target}, but every program writes: use read-write or primary"
        );
    }
    Ok(())
}

/// Returns the value for one server, from a list with one value for all servers or one for each.
fn nth(list: &str, index: usize, count: usize) -> anyhow::Result<&str> {
    let values: Vec<&str> = list.split(',').collect();
    match values[..] {
        [value] => Ok(value),
        _ if values.len() == count => Ok(values[index]),
        _ => bail!(
            "DATABASE_URL names {count} servers, but `{list}` has {}",
            values.len()
        ),
    }
}

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
    /// Whether engine and pooler are the same as for the first server.
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

/// Whether the server accepts writes. A standby accepts none.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn places(url: &str) -> Vec<String> {
        parse(url, None)
            .unwrap()
            .iter()
            .map(Server::place)
            .collect()
    }

    #[test]
    fn a_url_names_one_server_or_several() {
        assert_eq!(
            places("postgres://u:p%40@one/db?sslmode=disable"),
            ["one:5432"]
        );
        assert_eq!(
            places("postgres://u:p@one:5433,two,[::1]:5434/db?target_session_attrs=read-write"),
            ["one:5433", "two:5432", "[::1]:5434"]
        );
        assert_eq!(
            places("postgres:///db?host=/run/a,/run/b&user=postgres"),
            ["/run/a:5432", "/run/b:5432"]
        );
        assert_eq!(
            places("postgres:///db?host=one,two&port=5433,5434"),
            ["one:5433", "two:5434"]
        );
        assert_eq!(
            places("postgres://one,two/db?port=6432"),
            ["one:6432", "two:6432"]
        );
        let servers = parse("postgres://u:p%40@one,two/db", None).unwrap();
        for server in servers {
            assert_eq!(server.options.get_username(), "u");
            assert_eq!(server.options.get_database(), Some("db"));
        }
    }

    #[test]
    fn a_password_is_given_apart_as_it_is() {
        use sqlx::ConnectOptions;

        let servers = parse("postgres://u:other@one,two/db", Some("p@ss/word")).unwrap();
        for server in servers {
            let url = server.options.to_url_lossy();
            assert_eq!(url.password(), Some("p%40ss%2Fword"));
        }
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        for (url, why) in [
            ("mysql://one/db", "neither postgres://"),
            ("one", "neither postgres://"),
            ("postgres:///db?host=a,b,c&port=1,2", "has 2"),
            (
                "postgres://one/db?target_session_attrs=standby",
                "every program writes",
            ),
        ] {
            let error = parse(url, None).unwrap_err().to_string();
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
