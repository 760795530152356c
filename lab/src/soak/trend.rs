//! Metrics that must not grow during a soak, and the check that they do not. Pure functions.

use super::system::Sample;
use crate::median::median;

/// A metric that does not grow in a healthy system, however long it runs.
pub(super) struct Steady {
    pub(super) name: &'static str,
    pub(super) of: fn(&Sample) -> f64,
    /// Allowed growth from the second third of the run to the last, relative to the second.
    ///
    /// The limit leaves room because machines are noisy and some metrics move in steps.
    share: f64,
    /// Allowed growth in addition to `share`, in the metric's own unit.
    beside: f64,
}

pub(super) const STEADY: [Steady; 9] = [
    steady("api memory, MB", |s| s.api_mb, 0.1, 5.0),
    steady("worker memory, MB", |s| s.worker_mb, 0.1, 5.0),
    steady("latency p50, ms", |s| s.p50_ms, 0.5, 1.0),
    steady("latency p99, ms", |s| s.p99_ms, 1.0, 10.0),
    steady(
        "hold expiry lag p99, s",
        |s| s.expiry_lag_p99_seconds,
        0.5,
        0.3,
    ),
    steady("bytes per booking", |s| s.bytes_of_a_booking, 0.1, 0.0),
    steady("jobs table and indexes, MB", |s| s.jobs_mb, 0.25, 5.0),
    steady("shows table and indexes, MB", |s| s.shows_mb, 0.25, 1.0),
    // Rises and falls, because autovacuum runs once a minute.
    steady("dead rows in all tables", |s| s.dead_rows, 0.5, 50_000.0),
];

const fn steady(name: &'static str, of: fn(&Sample) -> f64, share: f64, beside: f64) -> Steady {
    Steady {
        name,
        of,
        share,
        beside,
    }
}

/// Fewest samples that a run must have: with fewer, a third is too small to show a trend.
pub(super) const SAMPLES_MIN: u32 = 30;

/// Returns a text for each metric that grew.
///
/// A metric grew if its median in the last third exceeds its median in the second third by more
/// than [`Steady`] allows. The first third is for warming up.
pub(super) fn find_growth(samples: &[Sample]) -> Vec<String> {
    let third = samples.len() / 3;
    let (middle, last) = samples[third..].split_at(samples.len() - 2 * third);
    STEADY
        .iter()
        .filter_map(|steady| {
            let (before, after) = (median_of(middle, steady.of), median_of(last, steady.of));
            (after > before * (1.0 + steady.share) + steady.beside)
                .then(|| format!("{} grew from {before:.1} to {after:.1}", steady.name))
        })
        .collect()
}

/// Returns the median of a metric.
pub(super) fn median_of(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    median(samples.iter().map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(api_mb: impl Fn(usize) -> f64) -> Vec<Sample> {
        (0..60)
            .map(|round| Sample {
                api_mb: api_mb(round),
                ..Sample::default()
            })
            .collect()
    }

    #[test]
    fn what_grows_on_and_on_is_found() {
        #[expect(clippy::cast_precision_loss, reason = "the round is below 60")]
        let grown = find_growth(&samples(|round| 50.0 + round as f64));
        assert_eq!(grown, ["api memory, MB grew from 79.5 to 99.5"]);
    }

    #[test]
    fn what_grows_at_first_or_moves_to_and_fro_is_none() {
        let warming_up = samples(|round| if round < 20 { 50.0 } else { 100.0 });
        assert!(find_growth(&warming_up).is_empty());
        let noisy = samples(|round| if round % 7 == 0 { 300.0 } else { 100.0 });
        assert!(find_growth(&noisy).is_empty());
    }
}
