//! Size and load of the database, from its own statistics.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

use super::{citus::Engine, database::Database, error::Error};

/// Usage of the database.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Version of the server.
    pub version: String,
    /// Size of the whole database on disk, in bytes.
    pub bytes: i64,
    /// Number of connections to the server, of all clients.
    pub connections: i64,
    /// Maximum number of connections that the server allows.
    pub max_connections: i64,
    /// Tables that bookings and jobs are written to.
    pub tables: Vec<Table>,
}

/// Usage of a table.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// Name of the table, with its schema unless that is the usual one.
    pub name: String,
    /// Size including indexes, in bytes.
    pub bytes: i64,
    /// Estimated number of rows.
    pub rows: i64,
    /// Estimated number of dead row versions, which take up space until they are vacuumed.
    pub dead_rows: i64,
    /// Time of the last vacuum.
    pub vacuumed_at: Option<DateTime<Utc>>,
}

/// The oldest open transaction.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OldestTransaction {
    /// Age of the transaction, in seconds.
    pub seconds: f64,
    /// Description of the session or the prepared transaction.
    pub holder: String,
}

/// Returns the transaction that has been open longest in this database; none if none is open.
///
/// While it is open, no row version that it could still see is removed, from any table: tables that
/// are written to grow, and lookups read more row versions.
///
/// Only members of `pg_read_all_stats` see sessions of other roles. Replication slots hold row
/// versions as well, but are not included, because they do not report since when.
///
/// # Errors
///
/// Fails if the query fails.
pub async fn oldest_transaction(pool: &PgPool) -> Result<Option<OldestTransaction>, Error> {
    let oldest = sqlx::query_as!(
        OldestTransaction,
        r#"SELECT seconds AS "seconds!", holder AS "holder!" FROM (
               SELECT extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds,
                      concat_ws(', ', 'session ' || pid, 'role ' || usename, nullif(application_name, ''),
                                'from ' || host(client_addr), state) AS holder
               FROM pg_stat_activity
               WHERE datname = current_database() AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
                 AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker'
               UNION ALL
               SELECT extract(epoch FROM clock_timestamp() - prepared)::float8,
                      concat_ws(', ', 'prepared transaction ' || gid, 'role ' || owner)
               FROM pg_prepared_xacts WHERE database = current_database()) AS open
           WHERE seconds IS NOT NULL ORDER BY seconds DESC LIMIT 1"#
    )
    .fetch_optional(pool)
    .await?;
    Ok(oldest)
}

/// Queries the usage of the database.
///
/// # Errors
///
/// Fails if a query fails.
pub async fn usage(database: &Database) -> Result<Usage, Error> {
    let pool = &database.pool;
    let mut tables = sqlx::query_as!(
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
    if database.engine == Engine::Citus {
        for table in &mut tables {
            add_shards(pool, table).await?;
        }
        tables.sort_by_key(|table| Reverse(table.bytes));
    }
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

/// Adds the sizes of a table's shards on the Citus servers.
///
/// The coordinator has none of a distributed table's rows.
async fn add_shards(pool: &PgPool, table: &mut Table) -> Result<(), Error> {
    // Not checked at compile time, by a PostgreSQL without Citus.
    let (bytes, rows, dead_rows, vacuumed_at) = sqlx::query_as::<_, (i64, i64, i64, Option<DateTime<Utc>>)>(
        "SELECT coalesce(sum(of_shard.bytes), 0)::bigint, coalesce(sum(of_shard.rows), 0)::bigint,
                coalesce(sum(of_shard.dead_rows), 0)::bigint, max(of_shard.vacuumed_at)
         FROM pg_dist_partition
         CROSS JOIN LATERAL run_command_on_shards(logicalrelid::text, $$
             SELECT json_build_object('bytes', pg_total_relation_size(relid), 'rows', n_live_tup, 'dead_rows', n_dead_tup,
                                      'vacuumed_at', greatest(last_vacuum, last_autovacuum))
             FROM pg_stat_user_tables WHERE relid = '%s'::regclass $$) AS shard
         CROSS JOIN LATERAL json_to_record(CASE WHEN shard.success THEN shard.result::json END)
             AS of_shard (bytes bigint, rows bigint, dead_rows bigint, vacuumed_at timestamptz)
         WHERE logicalrelid = to_regclass($1)",
    )
    .bind(&table.name)
    .fetch_one(pool)
    .await?;
    table.bytes += bytes;
    table.rows += rows;
    table.dead_rows += dead_rows;
    table.vacuumed_at = table.vacuumed_at.max(vacuumed_at);
    Ok(())
}
