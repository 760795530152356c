//! Reasons why a database is not ready.

/// Reason why a database is not ready, and what to do about it. Clients may read it.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// The database was never migrated.
    #[error("the database has no tables of this program yet: run `ticketing migrate`")]
    NoSchema,
    /// The database's schema is older than this program.
    #[error(
        "the database's schema has version {applied}, older than the {needed} that this program needs: run `ticketing migrate` of this version"
    )]
    Older {
        /// Newest migration that was applied.
        applied: i64,
        /// Newest migration that this program knows.
        needed: i64,
    },
    /// The database's schema is newer, and this program no longer understands it.
    #[error(
        "the database's schema needs a program of version {understood_from} or later, and this one has {own}: run a newer version of this program"
    )]
    Newer {
        /// Oldest program that understands the schema, by its newest migration.
        understood_from: i64,
        /// Newest migration that this program knows.
        own: i64,
    },
    /// The database lacks the queue's tables.
    #[error(
        "the database lacks the queue's tables (schema apalis): run `ticketing migrate`, or restore them from the backup"
    )]
    NoQueue,
    /// The database accepts no writes.
    #[error("the database accepts no writes: it is a standby")]
    ReadOnly,
    /// The database can be queried, but the last transaction could not write.
    #[error("the database accepts no writes: {reason}")]
    RefusesWrites {
        /// The reason, in words that clients may read.
        reason: String,
    },
    /// The database lacks a table, column or function that was used.
    #[error(
        "the database lacks a table, column or function that this program needs: run `ticketing migrate`"
    )]
    Object(#[source] sqlx::Error),
}
