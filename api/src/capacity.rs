//! Capacity of a process: its settings, lowered if open files or memory do not suffice for them.

use shared::process;

use crate::{admin, config::Config};

/// Maximum memory of an open connection, in bytes: while the longest request head arrives.
const CONNECTION_BYTES: u64 = 48_000;

/// Maximum memory of a large body that is received, built or sent, in bytes.
///
/// A list has up to 1,000 bookings, whose names have up to 200 characters of four bytes. A bulk
/// request has half as many, and a body of up to
/// [`MAX_BULK_BODY_BYTES`](crate::config::MAX_BULK_BODY_BYTES).
const LARGE_BODY_BYTES: u64 = 1_100_000;

/// Maximum memory of everything else, in bytes.
const BASE_BYTES: u64 = 100_000_000;

/// Maximum number of large bodies in memory.
const LARGE_BODIES_MAX: u64 = 256;

/// Number of other open files: log, listeners, and files that libraries open for a moment.
const OTHER_FILES: usize = 64;

/// Limits on what a process handles at the same time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    /// Maximum number of open connections.
    pub(crate) connections: usize,
    /// Maximum number of requests in flight, not more than `connections`.
    ///
    /// Otherwise the requests of one caller, which may be half of all, could keep every connection
    /// busy, and a new connection could replace none.
    pub(crate) in_flight: usize,
    /// Maximum number of lists and bulk requests in flight. They are until their client has read
    /// the response.
    pub(crate) large_bodies: usize,
}

impl Capacity {
    /// Calculates the limits of this process.
    ///
    /// It opens up to `database_connections` to its database. Connections of clients may take half
    /// of its memory, large bodies an eighth.
    pub(crate) fn new(config: &Config, database_connections: u32) -> Self {
        let other_files = count(database_connections) + admin::BOUNDS.connections + OTHER_FILES;
        let connections = process::connections_that_fit(
            count(config.connections_max),
            other_files,
            CONNECTION_BYTES,
        );
        let large_bodies = process::memory_limit().map_or(LARGE_BODIES_MAX, |memory| {
            (memory / 8 / LARGE_BODY_BYTES).clamp(4, LARGE_BODIES_MAX)
        });
        Self {
            connections,
            in_flight: count(config.in_flight_max).min(connections),
            large_bodies: usize::try_from(large_bodies).unwrap_or(usize::MAX),
        }
    }

    /// Returns the memory that the process never exceeds, whatever its clients do, in MB.
    pub(crate) fn memory_bound_mb(&self) -> u64 {
        let connections = self.connections as u64 * CONNECTION_BYTES;
        let large_bodies = self.large_bodies as u64 * LARGE_BODY_BYTES;
        (BASE_BYTES + connections + large_bodies) / 1_000_000
    }
}

fn count(setting: u32) -> usize {
    usize::try_from(setting).unwrap_or(usize::MAX)
}
