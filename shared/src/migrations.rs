//! Migrations of ticketing's tables, as embedded in this program.

use sqlx::migrate::Migrator;

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Returns the version of the newest migration that this program was built with.
pub(crate) fn newest() -> i64 {
    let versions = MIGRATIONS.iter().map(|migration| migration.version);
    versions.max().unwrap_or_default()
}
