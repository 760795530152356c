//! Citus: PostgreSQL whose shows and bookings are spread over several servers, by show.
//!
//! The schema and the statements are the same. What Citus asks for beside:
//!
//! * A transaction locks rows of one show. Its statements name that show (`$n IS NULL OR show_id = $n`), by which
//!   Citus finds the one server that has it.
//! * Statements are planned with their values: without them it can't tell which server is meant.
//! * What is written on the coordinator too, such as a job, is committed together with the booking only when the
//!   booking is written by an `INSERT … SELECT`: Citus commits in two phases then. `shared/tests/citus.rs` holds that.
//!
//! The queue, API keys and idempotency keys stay ordinary tables of the coordinator.

use sqlx::{PgConnection, PgPool, Row, postgres::PgDatabaseError};

/// What a database is kept by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// One server.
    Postgres,
    /// Several.
    Citus,
}

/// What keeps the database that this connection leads to.
///
/// # Errors
///
/// When it can't be asked.
pub(super) async fn engine(connection: &mut PgConnection) -> Result<Engine, sqlx::Error> {
    Ok(if is_installed(connection).await? {
        Engine::Citus
    } else {
        Engine::Postgres
    })
}

/// Whether the coordinator lost the connection to another server in the middle of a statement. It has no code for that but
/// the one for internal errors, so it is told by the part of Citus that says so.
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

/// The files of Citus's source that talk to other servers.
const TALKS_TO_SERVERS: [&str; 5] = [
    "adaptive_executor.c",
    "connection_management.c",
    "placement_connection.c",
    "remote_commands.c",
    "remote_transaction.c",
];

/// What Citus says, too, when it can't tell whether another server has committed.
pub(super) const INTERNAL_ERROR: &str = "XX000";

/// # Errors
///
/// When the database can't be asked.
async fn is_installed(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    // Not prepared: a pooler may be between.
    sqlx::raw_sql("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')")
        .fetch_one(connection)
        .await?
        .try_get(0)
}

/// The tables that are spread, by which column, and beside which one.
const SPREAD: [(&str, &str, &str); 2] = [("shows", "id", "none"), ("bookings", "show_id", "shows")];

/// Taken by one migrator at a time: "spread" in ASCII.
const SPREADING_KEY: i64 = 0x0073_7072_6561_6400;

/// Spreads shows and bookings by show, each booking beside its show, unless they are spread already. What they have is
/// moved; nobody can write to them meanwhile. Does nothing where there is no Citus.
///
/// # Errors
///
/// When Citus refuses.
pub(super) async fn spread(pool: &PgPool) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin().await?;
    if !is_installed(&mut tx).await? {
        return Ok(());
    }
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(SPREADING_KEY)
        .execute(&mut *tx)
        .await?;
    for (table, column, beside) in SPREAD {
        // These can't be checked when they are built, by a PostgreSQL without Citus.
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
            tracing::info!(table, column, "spread over the servers of Citus");
        }
    }
    tx.commit().await
}
