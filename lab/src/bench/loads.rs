//! The loads of a benchmark.

use crate::stress::Mode;

/// Measured loads: mode and number of connections.
pub(super) const CASES: [(Mode, u32); 8] = [
    (Mode::Hot, 1),
    (Mode::Hot, 8),
    (Mode::Hot, 32),
    (Mode::Hot, 128),
    (Mode::Hot, 512),
    (Mode::Spread, 128),
    (Mode::Confirm, 128),
    (Mode::Bulk, 4),
];

/// Load that is measured with and without a feature in use.
pub(super) const COMPARED: (Mode, u32) = (Mode::Hot, 128);

/// Number of pairs of such measurements, for each of the runs.
pub(super) const PAIRS: u8 = 2;

/// Load that is compared with the database alone.
pub(super) const LIMITED: (Mode, u32) = (Mode::Hot, 512);
