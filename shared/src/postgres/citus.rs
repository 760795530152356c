//! Citus: PostgreSQL with shows and bookings distributed over several servers, by show.
//!
//! The schema and the statements are the same. Citus has these additional requirements:
//!
//! * A transaction locks rows of one show. Its statements name that show
//!   (`$n IS NULL OR show_id = $n`), by which Citus finds the one server that has it.
//! * Statements are planned with their values. Without them Citus can't determine the server.
//! * A row that is written on the coordinator too, such as a job, is committed together with the
//!   booking only if an `INSERT … SELECT` writes the booking: Citus then commits in two phases.
//!   `cli/tests/citus.rs` tests this.
//!
//! The queue, API keys and idempotency keys stay ordinary tables of the coordinator.

use sqlx::{PgConnection, PgPool, Row, postgres::PgDatabaseError};

/// Database engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// PostgreSQL on a single server.
    Postgres,
    /// Citus on several servers.
    Citus,
}

/// Returns the engine of the database that this connection leads to.
///
/// # Errors
///
/// Fails if the query fails.
pub(super) async fn engine(connection: &mut PgConnection) -> Result<Engine, sqlx::Error> {
    Ok(if is_installed(connection).await? {
        Engine::Citus
    } else {
        Engine::Postgres
    })
}

/// Whether the coordinator lost the connection to another server in the middle of a statement.
///
/// Citus reports that with the code for internal errors, so the error is recognized by the source
/// file that raised it.
pub(super) fn lost_a_server(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
        .is_some_and(|error| {
            error.code() == INTERNAL_ERROR
                && error
                    .file()
                    .is_some_and(|file| TALKS_TO_SERVERS.contains(&file))
        })
}

/// Source files of Citus that communicate with other servers.
const TALKS_TO_SERVERS: [&str; 5] = [
    "adaptive_executor.c",
    "connection_management.c",
    "placement_connection.c",
    "remote_commands.c",
    "remote_transaction.c",
];

/// SQLSTATE that Citus also reports if it can't determine whether another server has committed.
pub(super) const INTERNAL_ERROR: &str = "XX000";

/// Whether the database has Citus installed.
///
/// # Errors
///
/// Fails if the query fails.
async fn is_installed(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // Not prepared, because the connection may lead through a pooler.
    sqlx::raw_sql("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')")
        .fetch_one(connection)
        .await?
        .try_get(0)
}

/// Distributed tables, each with its distribution column and the table that it is colocated with.
const SPREAD: [(&str, &str, &str); 3] = [
    ("shows", "id", "none"),
    ("bookings", "show_id", "shows"),
    ("batches", "show_id", "shows"),
];

/// Key of the advisory lock that one migrator at a time takes: "spread" in ASCII.
const SPREADING_KEY: i64 = 0x0073_7072_6561_6400;

/// Distributes shows and bookings by show, each booking on its show's server.
///
/// Their rows are moved, and writes to the tables are blocked meanwhile. Does nothing if the tables
/// are distributed already or the database has no Citus.
///
/// # Errors
///
/// Fails if Citus rejects a statement.
/// When Citus refuses.
pub(crate) async fn spread(pool: &PgPool) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin().await?;
    if !is_installed(&mut tx).await? {
        return Ok(());
    }
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(SPREADING_KEY)
        .execute(&mut *tx)
        .await?;
    for (table, column, beside) in SPREAD {
        // These statements can't be checked at compile time, by a PostgreSQL without Citus.
        let is_spread: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass($1))",
        )
        .bind(table)
        .fetch_one(&mut *tx)
        .await?;
        if !is_spread {
            sqlx::query(
                "SELECT create_distributed_table($1::text::regclass, $2, colocate_with => $3)",
            )
            .bind(table)
            .bind(column)
            .bind(beside)
            .execute(&mut *tx)
            .await?;
            tracing::info!(table, column, "table distributed over the Citus servers");
        }
    }
    tx.commit().await
}
