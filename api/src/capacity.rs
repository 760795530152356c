//! Capacity of a process: its settings, lowered if open files or memory do not suffice for them.

use shared::process;

use crate::{admin, config::Config};

/// Maximum memory of an open connection, in bytes: while the longest request head arrives.
const CONNECTION_BYTES: u64 = 48_000;

/// Maximum memory of a list that is built or sent, in bytes.
///
/// It has up to 1,000 bookings, whose names have up to 200 characters of four bytes.
const LIST_BYTES: u64 = 1_100_000;

/// Maximum memory of everything else, in bytes.
const BASE_BYTES: u64 = 100_000_000;

/// Maximum number of lists in flight.
const LISTS_MAX: u64 = 256;

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
    /// Maximum number of lists in flight. A list is in flight until its client has read it.
    pub(crate) lists: usize,
}

impl Capacity {
    /// Calculates the limits of this process.
    ///
    /// It opens up to `database_connections` to its database. Connections of clients may take half
    /// of its memory, lists an eighth.
    pub(crate) fn new(config: &Config, database_connections: u32) -> Self {
        let other_files = count(database_connections) + admin::BOUNDS.connections + OTHER_FILES;
        let connections = process::connections_that_fit(
            count(config.connections_max),
            other_files,
            CONNECTION_BYTES,
        );
        let lists = process::memory_limit().map_or(LISTS_MAX, |memory| {
            (memory / 8 / LIST_BYTES).clamp(4, LISTS_MAX)
        });
        Self {
            connections,
            in_flight: count(config.in_flight_max).min(connections),
            lists: usize::try_from(lists).unwrap_or(usize::MAX),
        }
    }

    /// Returns the memory that the process never exceeds, whatever its clients do, in MB.
    pub(crate) fn memory_bound_mb(&self) -> u64 {
        let connections = self.connections as u64 * CONNECTION_BYTES;
        let lists = self.lists as u64 * LIST_BYTES;
        (BASE_BYTES + connections + lists) / 1_000_000
    }
}

fn count(setting: u32) -> usize {
    usize::try_from(setting).unwrap_or(usize::MAX)
}
