//! Engine of the queue: apalis's schema with our changes, `migrations/repeatable/queue_engine.sql`.

use apalis_postgres::PostgresStorage;
use sqlx::{Executor, PgPool};

use crate::postgres::Error;

/// Our changes to apalis's schema. Each statement can be repeated.
const SQL: &str = include_str!("../../../migrations/repeatable/queue_engine.sql");

/// Mark that [`SQL`] puts on the function that hands out jobs, without the hash at its end.
///
/// Its number goes up when a worker expects more of that function.
const MARK: &str = "ticketing 1 ";

/// Key of the advisory lock that one migrator at a time holds: "engine" in ASCII.
const APPLYING_KEY: i64 = 0x656e_6769_6e65;

/// Creates or updates apalis's own tables (schema `apalis`).
///
/// # Errors
///
/// Fails if the database call fails.
pub(crate) async fn create(pool: &PgPool) -> Result<(), Error> {
    PostgresStorage::setup(pool)
        .await
        .map_err(|error| match error {
            apalis_postgres::Error::Database(error) => error.into(),
            other => sqlx::Error::AnyDriverError(Box::new(other)).into(),
        })
}

/// Applies our changes to apalis's schema, whatever its own migrations have made of it.
///
/// # Errors
///
/// Fails if the database call fails.
pub(crate) async fn apply(pool: &PgPool) -> Result<(), Error> {
    let mut tx = pool.begin().await?;
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", APPLYING_KEY)
        .execute(&mut *tx)
        .await?;
    tx.execute(sqlx::raw_sql(SQL)).await?;
    tx.commit().await?;
    Ok(())
}

/// Returns whether our function hands out jobs, in the version that this program knows.
///
/// Apalis's migrations, or somebody by hand, may have put another function in its place.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn is_applied(pool: &PgPool) -> Result<bool, Error> {
    let is_applied = sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM pg_proc
               WHERE oid = to_regprocedure('apalis.get_jobs(text, text, integer)')
                 AND obj_description(oid, 'pg_proc') = $1 || md5(prosrc)) AS "is_applied!""#,
        MARK,
    )
    .fetch_one(pool)
    .await?;
    Ok(is_applied)
}
