//! The servers that `DATABASE_URL` names.

use std::borrow::Cow;

use anyhow::{Context, bail, ensure};
use form_urlencoded::Serializer;
use sqlx::postgres::PgConnectOptions;

use super::{database::DatabaseArgs, password};

/// A server, or a pooler in front of one.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// Connection options without our settings.
    pub(super) options: PgConnectOptions,
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

#[cfg(test)]
mod tests;
