//! What the database has to carry, by its own statistics.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

use super::Error;

/// The database as a whole.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// The server's version.
    pub version: String,
    /// All of the database on disk, in bytes.
    pub bytes: i64,
    /// Connections of everybody to the server.
    pub connections: i64,
    /// How many it allows.
    pub max_connections: i64,
    /// The tables that bookings and jobs are written to.
    pub tables: Vec<Table>,
}

/// A table.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// Its name, with its schema where that is not the usual one.
    pub name: String,
    /// With its indexes, in bytes.
    pub bytes: i64,
    /// Rows, by the last estimate.
    pub rows: i64,
    /// Versions of rows that are dead and take room until they are vacuumed, by the last estimate.
    pub dead_rows: i64,
    /// When it was vacuumed the last time.
    pub vacuumed_at: Option<DateTime<Utc>>,
}

/// Asks for it.
///
/// # Errors
///
/// [`Error`].
pub async fn usage(pool: &PgPool) -> Result<Usage, Error> {
    let tables = sqlx::query_as!(
        Table,
        r#"SELECT CASE schemaname WHEN 'apalis' THEN 'apalis.' ELSE '' END || relname AS "name!",
                  pg_total_relation_size(relid) AS "bytes!",
                  n_live_tup AS "rows!", n_dead_tup AS "dead_rows!",
                  greatest(last_vacuum, last_autovacuum) AS vacuumed_at
           FROM pg_stat_user_tables
           WHERE relid IN (to_regclass('shows'), to_regclass('bookings'), to_regclass('idempotency_keys'),
                           to_regclass('apalis.jobs'))
           ORDER BY 2 DESC"#,
    )
    .fetch_all(pool)
    .await?;
    let server = sqlx::query!(
        r#"SELECT current_setting('server_version') AS "version!",
                  pg_database_size(current_database()) AS "bytes!",
                  (SELECT sum(numbackends)::bigint FROM pg_stat_database) AS "connections!",
                  current_setting('max_connections')::bigint AS "max_connections!""#
    )
    .fetch_one(pool)
    .await?;
    Ok(Usage {
        version: server.version,
        bytes: server.bytes,
        connections: server.connections,
        max_connections: server.max_connections,
        tables,
    })
}
