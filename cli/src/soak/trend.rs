//! What must not grow, and whether it does. Pure.

use super::Sample;

/// Something that stays as it is when a system is well, however long it runs.
pub(super) struct Steady {
    pub(super) name: &'static str,
    pub(super) of: fn(&Sample) -> f64,
    /// How much more the last third may have than the one before: a share of that, and so much beside it. Machines are
    /// noisy, and what is measured moves in steps.
    share: f64,
    beside: f64,
}

pub(super) const STEADY: [Steady; 9] = [
    steady("memory of api, MB", |s| s.api_mb, 0.1, 5.0),
    steady("memory of worker, MB", |s| s.worker_mb, 0.1, 5.0),
    steady("latency p50, ms", |s| s.p50_ms, 0.5, 1.0),
    steady("latency p99, ms", |s| s.p99_ms, 1.0, 10.0),
    steady(
        "holds fail late p99, s",
        |s| s.expiry_lag_p99_seconds,
        0.5,
        0.3,
    ),
    steady("bytes of a booking", |s| s.bytes_of_a_booking, 0.1, 0.0),
    steady("table and indexes of jobs, MB", |s| s.jobs_mb, 0.25, 5.0),
    steady("table and indexes of shows, MB", |s| s.shows_mb, 0.25, 1.0),
    // They come and go with each minute's vacuum.
    steady("dead rows of all tables", |s| s.dead_rows, 0.5, 50_000.0),
];

const fn steady(name: &'static str, of: fn(&Sample) -> f64, share: f64, beside: f64) -> Steady {
    Steady {
        name,
        of,
        share,
        beside,
    }
}

/// With fewer samples a third is too few to tell.
pub(super) const SAMPLES_MIN: u32 = 30;

/// What grew: the median of the last third is more than it may be. The first third is for warming up.
pub(super) fn find_growth(samples: &[Sample]) -> Vec<String> {
    let third = samples.len() / 3;
    let (middle, last) = samples[third..].split_at(samples.len() - 2 * third);
    STEADY
        .iter()
        .filter_map(|steady| {
            let (before, after) = (median(middle, steady.of), median(last, steady.of));
            (after > before * (1.0 + steady.share) + steady.beside)
                .then(|| format!("{} grew from {before:.1} to {after:.1}", steady.name))
        })
        .collect()
}

/// The middle one; of an even number the higher of both.
pub(super) fn median(samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
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
        #[expect(clippy::cast_precision_loss, reason = "it is small")]
        let grown = find_growth(&samples(|round| 50.0 + round as f64));
        assert_eq!(grown, ["memory of api, MB grew from 80.0 to 100.0"]);
    }

    #[test]
    fn what_grows_at_first_or_moves_to_and_fro_is_none() {
        let warming_up = samples(|round| if round < 20 { 50.0 } else { 100.0 });
        assert!(find_growth(&warming_up).is_empty());
        let noisy = samples(|round| if round % 7 == 0 { 300.0 } else { 100.0 });
        assert!(find_growth(&noisy).is_empty());
    }
}
