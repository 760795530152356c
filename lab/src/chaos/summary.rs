//! The result of all rounds.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fault::Planned;
use crate::stress::Outcome;

/// Result of all rounds.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    pub(super) rounds: u32,
    /// Number of faults of each kind.
    faults: BTreeMap<String, u32>,
    /// Number of requests that were answered.
    answered: u64,
    /// Number of bookings that were acknowledged.
    acknowledged: u64,
    /// Number of errors of each kind: requests without an answer, or with an error status.
    errors: BTreeMap<String, u64>,
    /// Longest time from the deadline of a hold until it failed.
    latest_seconds: f64,
    /// Faults found by the verification.
    ///
    /// The run ends at the first round that has any.
    pub(super) wrong: Vec<String>,
}

/// Result of the verification of a round.
pub(super) struct Found {
    pub(super) latest_seconds: f64,
    pub(super) wrong: Vec<String>,
}

impl Summary {
    /// Adds a round, and returns a one-line description of it.
    pub(super) fn add(&mut self, plan: &[Planned], outcome: &Outcome, found: Found) -> String {
        let acknowledged = outcome.acks.acknowledged.len();
        let errors = outcome.load.seen(|seen| seen.errors.clone());
        let faults: Vec<String> = plan
            .iter()
            .map(|Planned { at, fault }| format!("{fault} at {:.1} s", at.as_secs_f64()))
            .collect();
        let line = format!(
            "{}; {acknowledged} acknowledged, {} errors; maximum expiry lag {:.1} s; {}",
            faults.join(", "),
            errors.values().sum::<u64>(),
            found.latest_seconds,
            if found.wrong.is_empty() {
                "ok"
            } else {
                "WRONG"
            },
        );
        for planned in plan {
            *self
                .faults
                .entry(planned.fault.kind().to_owned())
                .or_default() += 1;
        }
        for (what, count) in errors {
            *self.errors.entry(what).or_default() += count;
        }
        self.answered += outcome.load.requests();
        self.acknowledged += acknowledged as u64;
        self.latest_seconds = self.latest_seconds.max(found.latest_seconds);
        self.wrong = found.wrong;
        line
    }

    pub(super) fn print(&self) {
        println!("\n{} rounds", self.rounds);
        for (fault, count) in &self.faults {
            println!("{count:>8} {fault}");
        }
        println!(
            "{} requests answered, {} bookings acknowledged",
            self.answered, self.acknowledged
        );
        for (error, count) in &self.errors {
            println!("{count:>8} {error}");
        }
        println!("maximum expiry lag: {:.1} s", self.latest_seconds);
        for wrong in &self.wrong {
            println!("WRONG: {wrong}");
        }
        if self.wrong.is_empty() {
            println!(
                "Every booking is as it was acknowledged, every seat is available again, \
                 and every invariant holds."
            );
        }
    }
}
