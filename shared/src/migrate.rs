//! Schema migrations, of apalis's tables and of ours.

use anyhow::{Context, ensure};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    migrations::MIGRATIONS,
    postgres::{Database, citus},
    queue::engine,
};

/// Oldest major version of PostgreSQL that this program's statements are tested with.
const MIN_VERSION: i32 = 15;

/// Brings the schema up to date: first the tables of apalis, then those of ticketing.
///
/// If the database has [Citus](citus), shows and bookings are distributed over its servers. Safe to
/// repeat, and to run in several processes at once, because each migrator holds an advisory lock.
///
/// # Errors
///
/// Fails if the server is too old, lacks an extension that apalis needs, or a migration fails.
pub async fn run(database: &Database) -> anyhow::Result<()> {
    database.ensure_direct("Migrating")?;
    check_server(&database.pool).await?;
    let pool = &without_time_limits(&database.pool).await?;
    engine::create(pool)
        .await
        .context("cannot migrate the queue's tables (schema apalis)")?;
    MIGRATIONS
        .run(pool)
        .await
        .context("cannot migrate ticketing's tables")?;
    citus::spread(pool)
        .await
        .context("cannot distribute the tables over the Citus servers")?;
    // Last, because apalis's own migrations may have redefined what this replaces.
    engine::apply(pool)
        .await
        .context("cannot adapt the queue's tables (schema apalis)")?;
    pool.close().await;
    Ok(())
}

/// Opens a pool without timeouts.
///
/// A migration of a big table takes long, and one process waits for another's migrations to end.
async fn without_time_limits(pool: &PgPool) -> anyhow::Result<PgPool> {
    let options = pool.connect_options().as_ref().clone();
    Ok(PgPoolOptions::new()
        .max_connections(2)
        .connect_with(options.options([("statement_timeout", "0"), ("lock_timeout", "0")]))
        .await?)
}

async fn check_server(pool: &PgPool) -> anyhow::Result<()> {
    let server = sqlx::query!(
        r#"SELECT current_setting('server_version_num')::integer / 10000 AS "version!",
                  ARRAY(SELECT wanted FROM unnest(ARRAY['hstore', 'pgcrypto']) AS wanted
                        EXCEPT SELECT name FROM pg_available_extensions) AS "missing!: Vec<String>""#
    )
    .fetch_one(pool)
    .await
    .context("cannot query the PostgreSQL server's version")?;
    ensure_suits(server.version, &server.missing)
}

fn ensure_suits(version: i32, missing: &[String]) -> anyhow::Result<()> {
    ensure!(
        version >= MIN_VERSION,
        "PostgreSQL {MIN_VERSION} or newer is required, this server is {version}",
    );
    ensure!(
        missing.is_empty(),
        "the PostgreSQL server lacks the extensions {}; they are in its contrib package (Debian: postgresql-contrib)",
        missing.join(", "),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_the_server_lacks() {
        assert!(ensure_suits(MIN_VERSION, &[]).is_ok());
        let error = ensure_suits(14, &[]).unwrap_err().to_string();
        assert!(error.contains("this server is 14"), "{error}");
        let error = ensure_suits(MIN_VERSION, &["pgcrypto".to_owned()]).unwrap_err();
        let expected = "lacks the extensions pgcrypto; they are in its contrib package";
        assert!(error.to_string().contains(expected), "{error}");
    }
}
