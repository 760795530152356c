//! What each of our sessions asks of the server.

/// Names and values.
pub(super) const ALL: [(&str, &str); 19] = [
    // What our statements are written for, whatever `ALTER DATABASE` or `ALTER ROLE` say. (Not `synchronous_commit`, which is
    // the operator's choice, and not what only a superuser may set.)
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_deferrable", "off"),
    ("search_path", "public"),
    ("standard_conforming_strings", "on"),
    ("bytea_output", "hex"),
    ("IntervalStyle", "postgres"),
    ("row_security", "on"),
    // A pool's connections may wait for work.
    ("idle_session_timeout", "0"),
    ("statement_timeout", "10s"),
    (LOCK_TIMEOUT.0, LOCK_TIMEOUT.1),
    ("idle_in_transaction_session_timeout", "30s"),
    // Each statement has its index and one good plan. So nothing is planned again and again for a batch of
    // another size, and a plan made while the tables are small does not scan them when they have grown.
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    // It reads all versions of a row to find the newest, which is the first in the order of an index.
    ("enable_bitmapscan", "off"),
    // No statement runs for so long that to compile it would pay.
    ("jit", "off"),
    // A host that vanished is noticed within a minute, and its locks are released.
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
];

/// By which it is seen whether they arrived.
pub(super) const LOCK_TIMEOUT: (&str, &str) = ("lock_timeout", "2s");

/// Instead, for those who have other work to do than to wait for a lock.
pub(super) const IMPATIENT: (&str, &str) = ("lock_timeout", "50ms");

/// On top of these for the statements of the queue's engine, which are not ours.
pub(super) const QUEUE_ENGINE: [(&str, &str); 4] = [
    // What is left are plans that find rows, by way of a bitmap, by a value which the statement names. Made while the tables are empty, and kept,
    // its plans would else read all jobs by way of an index to find one by its id.
    ("enable_bitmapscan", "on"),
    ("enable_indexscan", "off"),
    ("enable_indexonlyscan", "off"),
    // Nothing is lost with what a crash undoes: a job that was taken or acknowledged is run again.
    ("synchronous_commit", "off"),
];

/// On top of these where Citus is: see [`citus`](super::citus).
pub(super) const CITUS: [(&str, &str); 2] = [
    // Which server is meant depends on the values.
    ("plan_cache_mode", "force_custom_plan"),
    // What has to ask all servers needs no second connection to any of them, which costs more to open than it saves.
    ("citus.max_adaptive_executor_pool_size", "1"),
];

/// How long a statement waits for a lock before it fails with [`Locked`](super::Error::Locked).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// 2 s.
    Usual,
    /// 50 ms: longer than transactions of ours hold a lock, as a rule.
    Short,
}

impl Patience {
    pub(super) fn lock_timeout(self) -> &'static str {
        match self {
            Self::Usual => LOCK_TIMEOUT.1,
            Self::Short => IMPATIENT.1,
        }
    }
}
