//! PostgreSQL settings of this program's sessions.

/// Names and values of the settings of every session.
pub(super) const ALL: [(&str, &str); 20] = [
    // Our statements are written for these settings, whatever `ALTER DATABASE` or `ALTER ROLE` say.
    // Missing are `synchronous_commit`, which is the operator's choice, and settings that only a
    // superuser may change.
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    ("search_path", "public"),
    ("standard_conforming_strings", "on"),
    ("bytea_output", "hex"),
    ("IntervalStyle", "postgres"),
    ("row_security", "on"),
    // A pool's connections may be idle for long.
    ("idle_session_timeout", "0"),
    ("statement_timeout", "10s"),
    (LOCK_TIMEOUT.0, LOCK_TIMEOUT.1),
    ("idle_in_transaction_session_timeout", "30s"),
    // Each statement has its index and one good plan. So no statement is planned again for a batch
    // of another size, and no plan made while the tables are small scans them when they have grown.
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    // A bitmap scan reads all versions of a row to find the newest, which comes first in index
    // order.
    ("enable_bitmapscan", "off"),
    // No statement runs for so long that compiling it would pay off.
    ("jit", "off"),
    // Nor would helpers, which read more of an index than its first rows.
    ("max_parallel_workers_per_gather", "0"),
    // A host that vanished is noticed within a minute, and its locks are released.
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
];

/// Lock timeout. Read back to check that the settings were applied.
pub(super) const LOCK_TIMEOUT: (&str, &str) = ("lock_timeout", "2s");

/// Lock timeout of sessions that have other work to do than to wait for a lock.
pub(super) const SHORT_LOCK_TIMEOUT: (&str, &str) = ("lock_timeout", "50ms");

/// Additional settings for the statements of the queue's engine, which are not ours.
pub(super) const QUEUE_ENGINE: [(&str, &str); 4] = [
    // With index scans off, the remaining plans find rows through a bitmap, by a value that the
    // statement names. Otherwise a plan made while the tables are empty, and kept, would read all
    // jobs through an index to find one by its id.
    ("enable_bitmapscan", "on"),
    ("enable_indexscan", "off"),
    ("enable_indexonlyscan", "off"),
    // What a crash undoes is not lost: a job that was claimed or acknowledged is run again.
    ("synchronous_commit", "off"),
];

/// Additional settings on Citus: see [`citus`](super::citus).
pub(super) const CITUS: [(&str, &str); 2] = [
    // Which server is queried depends on the values.
    ("plan_cache_mode", "force_custom_plan"),
    // A query of all servers needs no second connection to any of them, which costs more to open
    // than it saves.
    ("citus.max_adaptive_executor_pool_size", "1"),
];

/// Lock timeout: how long a statement waits before it fails with [`Locked`](super::Error::Locked).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockTimeout {
    /// A timeout of 2 s.
    Usual,
    /// A timeout of 50 ms, which is usually longer than our transactions hold a lock.
    Short,
}

impl LockTimeout {
    pub(super) fn lock_timeout(self) -> &'static str {
        match self {
            Self::Usual => LOCK_TIMEOUT.1,
            Self::Short => SHORT_LOCK_TIMEOUT.1,
        }
    }
}
