//! The report of a load, as a table and as JSON.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{args::Args, load::Outcome, verify::Verification};
use crate::table;

/// Result of a load.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    mode: String,
    connections: u32,
    seconds: f64,
    /// Number of answered requests of all kinds.
    pub(crate) requests: u64,
    /// Number of acknowledged bookings.
    pub(crate) bookings: u64,
    pub(crate) bookings_per_second: f64,
    /// Number of bookings that were refused for lack of seats.
    refusals: u64,
    /// Number of retries of bookings.
    retries: u64,
    /// Number of retries that an earlier attempt had already booked.
    pub(crate) replays: u64,
    /// Number of requests without an answer, or with an unexpected one, by kind.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) latency_ms: Latency,
    verification: Verification,
}

/// Latency of all requests, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Report {
    pub(crate) fn new(
        args: &Args,
        Outcome { load, took, .. }: &Outcome,
        verification: Verification,
    ) -> Self {
        let (latency_ms, errors) = load.seen(|seen| {
            let at = |quantile| millis(seen.latency.value_at_quantile(quantile));
            let latency = Latency {
                p50: at(0.5),
                p95: at(0.95),
                p99: at(0.99),
                p999: at(0.999),
                max: millis(seen.latency.max()),
            };
            (latency, seen.errors.clone())
        });
        let seconds = took.as_secs_f64();
        Self {
            mode: format!("{:?}", args.mode).to_lowercase(),
            connections: args.connections,
            seconds,
            requests: load.requests(),
            bookings: load.booked(),
            bookings_per_second: load.bookings_per_second(*took),
            refusals: load.refused(),
            retries: load.retried(),
            replays: load.replayed(),
            errors,
            latency_ms,
            verification,
        }
    }

    /// Returns the number of answered requests of all kinds per second.
    pub(crate) fn requests_per_second(&self) -> f64 {
        rate(self.requests, self.seconds)
    }

    /// Returns whether the verification found no fault.
    pub(crate) fn verified(&self) -> bool {
        self.verification.faults.is_empty()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

#[expect(clippy::cast_precision_loss, reason = "latencies stay far below 2^52")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = table::plain();
        let mut row = |name: &str, value: String| {
            table.add_row([name, &value]);
        };
        row("mode", self.mode.clone());
        row("connections", self.connections.to_string());
        row("seconds", format!("{:.1}", self.seconds));
        row("bookings", self.bookings.to_string());
        row("bookings/s", format!("{:.0}", self.bookings_per_second));
        row("refusals", self.refusals.to_string());
        if self.retries > 0 {
            row("retries", self.retries.to_string());
            row("replays", self.replays.to_string());
        }
        row("errors", self.errors.values().sum::<u64>().to_string());
        for (what, count) in &self.errors {
            row(&format!("  {what}"), count.to_string());
        }
        row("p50 ms", format!("{:.2}", self.latency_ms.p50));
        row("p95 ms", format!("{:.2}", self.latency_ms.p95));
        row("p99 ms", format!("{:.2}", self.latency_ms.p99));
        row("p99.9 ms", format!("{:.2}", self.latency_ms.p999));
        row("max ms", format!("{:.2}", self.latency_ms.max));
        table::align_figures(&mut table);
        writeln!(f, "{table}\n")?;
        let Verification {
            seats,
            available,
            taken,
            bookings,
            faults,
        } = &self.verification;
        writeln!(
            f,
            "{seats} seats = {available} available + {taken} taken by {bookings} bookings"
        )?;
        if faults.is_empty() {
            write!(
                f,
                "verified: the seats add up, and each booking is as it was acknowledged"
            )
        } else {
            write!(f, "BROKEN: {}", faults.join("; "))
        }
    }
}
