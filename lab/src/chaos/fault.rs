//! The faults of a round and their times, which a seed decides.

use std::{fmt, time::Duration};

use fastrand::Rng;

/// A fault that is injected into the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9` of an api, which is restarted at once.
    KillApi(usize),
    /// `kill -9` of a worker, which is restarted at once.
    KillWorker(usize),
    /// `kill -9` of every process of PostgreSQL, which is restarted at once.
    KillPostgres,
    /// Immediate restart of PostgreSQL, without waiting for its clients.
    RestartPostgres,
    /// Terminates this many connections to the database.
    CutConnections(i64),
    /// Suspends a worker (SIGSTOP) for longer than it takes to count as dead, then resumes it.
    SuspendWorker(usize),
    /// Suspends all processes of PostgreSQL (SIGSTOP) for this long.
    SuspendPostgres(Duration),
}

impl Fault {
    /// Returns the kind of fault, without its target or extent.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::KillApi(_) => "kill api",
            Self::KillWorker(_) => "kill worker",
            Self::KillPostgres => "kill PostgreSQL",
            Self::RestartPostgres => "restart PostgreSQL",
            Self::CutConnections(_) => "cut connections",
            Self::SuspendWorker(_) => "suspend worker",
            Self::SuspendPostgres(_) => "suspend PostgreSQL",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())?;
        match self {
            Self::KillApi(index) | Self::KillWorker(index) | Self::SuspendWorker(index) => {
                write!(f, " {index}")
            }
            Self::KillPostgres | Self::RestartPostgres => Ok(()),
            Self::CutConnections(count) => write!(f, " ({count})"),
            Self::SuspendPostgres(time) => write!(f, " for {time:.1?}"),
        }
    }
}

/// A fault and its time, counted from the start of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) at: Duration,
    pub(super) fault: Fault,
}

/// Number of kinds of faults.
pub(super) const KINDS: usize = 7;

/// Number of faults in a round.
pub(super) const FAULTS: usize = 4;

/// Returns the faults of the round with this seed, in the order of their times.
///
/// They are of different kinds, and each happens at a random time during `load`, the duration of
/// the load.
pub(super) fn plan(seed: u64, load: Duration) -> Vec<Planned> {
    let mut rng = Rng::with_seed(seed);
    let (killed, suspended) = if rng.bool() { (0, 1) } else { (1, 0) };
    let mut faults: [Fault; KINDS] = [
        Fault::KillApi(rng.usize(0..2)),
        Fault::KillWorker(killed),
        Fault::KillPostgres,
        Fault::RestartPostgres,
        Fault::CutConnections(rng.i64(1..=30)),
        Fault::SuspendWorker(suspended),
        Fault::SuspendPostgres(Duration::from_millis(rng.u64(500..5000))),
    ];
    rng.shuffle(&mut faults);
    // No fault in the first tenth, because the clients are still connecting.
    let mut moments: Vec<Duration> = (0..FAULTS)
        .map(|_| load.mul_f64(0.1 + 0.9 * rng.f64()))
        .collect();
    moments.sort_unstable();
    moments
        .into_iter()
        .zip(faults)
        .map(|(at, fault)| Planned { at, fault })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, mem::discriminant};

    use super::*;

    #[test]
    fn a_seed_decides_and_every_kind_of_fault_happens() {
        let load = Duration::from_secs(10);
        let mut kinds = HashSet::new();
        for seed in 0..20 {
            let plan = plan(seed, load);
            assert_eq!(plan, super::plan(seed, load));
            assert_eq!(plan.len(), FAULTS);
            assert!(plan.is_sorted_by_key(|planned| planned.at));
            assert!(plan.iter().all(|planned| planned.at < load));
            let of_round: HashSet<_> = plan.iter().map(|p| discriminant(&p.fault)).collect();
            assert_eq!(of_round.len(), FAULTS);
            kinds.extend(of_round);
        }
        assert_eq!(kinds.len(), KINDS);
    }
}
