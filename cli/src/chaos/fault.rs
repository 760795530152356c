//! What is done to the system, and when. A seed decides.

use std::{fmt, time::Duration};

use fastrand::Rng;

/// One of the things that happen to a system in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9` of an api; it is started again at once.
    KillApi(usize),
    /// `kill -9` of a worker; it is started again at once.
    KillWorker(usize),
    /// `kill -9` of every process of PostgreSQL; it is started again at once.
    KillPostgres,
    /// PostgreSQL is restarted without waiting for anybody.
    RestartPostgres,
    /// Connections to the database are cut, so many of them.
    CutConnections(i64),
    /// A worker is stopped (SIGSTOP) for longer than it takes to count as dead, and goes on then.
    SuspendWorker(usize),
    /// All of PostgreSQL is stopped (SIGSTOP) for so long.
    SuspendPostgres(Duration),
}

impl Fault {
    /// What it is, whatever it happens to.
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

/// A fault and its moment, counted from the beginning of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) at: Duration,
    pub(super) fault: Fault,
}

/// How many kinds of faults there are.
pub(super) const KINDS: usize = 7;

/// How many of them happen in a round.
pub(super) const FAULTS: usize = 4;

/// The faults of the round with this seed, while a load goes on for `load`: of different kinds, each at a random
/// moment, in the order of their moments.
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
    // Not in the first tenth, in which the clients connect.
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
