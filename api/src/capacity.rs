//! How much a process takes on at the same time: what its settings ask for, as far as its files and memory suffice.

use shared::process;

use crate::{admin, config::Config};

/// Maximum memory of an open connection, in bytes: with the longest request head on its way.
const CONNECTION_BYTES: u64 = 48_000;

/// Maximum memory of a list that is made or sent, in bytes: 1,000 bookings.
const LIST_BYTES: u64 = 600_000;

/// Maximum memory of everything else, in bytes.
const BASE_BYTES: u64 = 100_000_000;

/// Maximum number of lists in flight.
const LISTS_MAX: u64 = 256;

/// File descriptors beside connections: log, listeners, what libraries open for a moment.
const OTHER_FILES: usize = 64;

/// Bounds of what a process takes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    /// Maximum number of open connections.
    pub(crate) connections: usize,
    /// Maximum number of requests in flight. No more than connections, so that one caller's requests, which may be half of them,
    /// leave connections that a new one can replace.
    pub(crate) in_flight: usize,
    /// Maximum number of lists in flight, until their clients have read them.
    pub(crate) lists: usize,
}

impl Capacity {
    /// Calculates the bounds of this process, which has so many connections to its database. Connections may take half of its
    /// memory, lists an eighth.
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

    /// The memory that the process never exceeds, whatever its clients do.
    pub(crate) fn memory_bound_mb(&self) -> u64 {
        let connections = self.connections as u64 * CONNECTION_BYTES;
        let lists = self.lists as u64 * LIST_BYTES;
        (BASE_BYTES + connections + lists) / 1_000_000
    }
}

fn count(setting: u32) -> usize {
    usize::try_from(setting).unwrap_or(usize::MAX)
}
