//! The report of a benchmark, as a table and as JSON.

use std::{fmt, process::Command};

use comfy_table::{Table, presets};
use serde::Serialize;
use shared::local_postgres::LocalPostgres;

use super::{loads::LIMITED, trials::Trials};
use crate::{
    cost::Cost,
    median::median,
    stress::{self, Mode},
    table,
};

/// One measurement.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measured {
    pub(super) bookings_per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Cost of each booking; zero for a peer.
    pub(super) cost: Cost,
}

impl Measured {
    pub(super) fn new(report: &stress::Report, cost: Cost) -> Self {
        Self {
            bookings_per_second: report.bookings_per_second,
            p50_ms: report.latency_ms.p50,
            p99_ms: report.latency_ms.p99,
            cost,
        }
    }
}

/// Measurements of one mode and number of connections.
///
/// Each is measured with a transaction per booking, and with group commit.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Case {
    pub(super) mode: String,
    pub(super) connections: u32,
    one_by_one: Vec<Measured>,
    grouped: Vec<Measured>,
    /// Measurements of the peer, if it takes part.
    peer: Vec<Measured>,
}

/// One of the things that are compared in each case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contender {
    /// A transaction for each booking.
    OneByOne,
    /// Group commit.
    Grouped,
    /// Redis behind a thin handler.
    Peer,
}

impl Case {
    pub(super) fn new(mode: Mode, connections: u32) -> Self {
        Self {
            mode: mode_name(mode),
            connections,
            one_by_one: Vec::new(),
            grouped: Vec::new(),
            peer: Vec::new(),
        }
    }

    fn is(&self, (mode, connections): (Mode, u32)) -> bool {
        self.mode == mode_name(mode) && self.connections == connections
    }

    pub(super) fn add(&mut self, contender: Contender, measured: Measured) {
        match contender {
            Contender::OneByOne => self.one_by_one.push(measured),
            Contender::Grouped => self.grouped.push(measured),
            Contender::Peer => self.peer.push(measured),
        }
    }

    /// Returns the medians with a transaction per booking.
    pub(super) fn one_by_one(&self) -> Measured {
        medians(&self.one_by_one)
    }

    /// Returns the medians with group commit.
    pub(super) fn grouped(&self) -> Measured {
        medians(&self.grouped)
    }

    /// Returns the medians of the peer, if it took part.
    pub(super) fn peer(&self) -> Option<Measured> {
        (!self.peer.is_empty()).then(|| medians(&self.peer))
    }
}

/// Measurements of the same load under two circumstances, of which one may cost something.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Comparison {
    /// Mode and number of connections.
    load: String,
    /// The circumstance, for a sentence: "with …".
    pub(super) circumstance: &'static str,
    pub(super) without: Vec<Measured>,
    pub(super) with: Vec<Measured>,
}

impl Comparison {
    pub(super) fn new((mode, connections): (Mode, u32), circumstance: &'static str) -> Self {
        Self {
            load: format!("{}, {connections} connections", mode_name(mode)),
            circumstance,
            without: Vec::new(),
            with: Vec::new(),
        }
    }

    /// Returns the rate with the feature, relative to the rate without it.
    ///
    /// It is the median over the pairs; the two halves of a pair are measured one after the other.
    pub(super) fn ratio(&self) -> f64 {
        let pairs = self.with.iter().zip(&self.without);
        median(
            pairs
                .map(|(with, without)| with.bookings_per_second / without.bookings_per_second)
                .collect(),
        )
    }
}

fn mode_name(mode: Mode) -> String {
    format!("{mode:?}").to_lowercase()
}

fn medians(all: &[Measured]) -> Measured {
    let of = |value: fn(&Measured) -> f64| median(all.iter().map(value).collect());
    Measured {
        bookings_per_second: of(|m| m.bookings_per_second),
        p50_ms: of(|m| m.p50_ms),
        p99_ms: of(|m| m.p99_ms),
        cost: Cost::from(&all.iter().map(|m| m.cost).collect::<Vec<_>>(), median),
    }
}

/// Result of a benchmark.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    machine: String,
    postgres: String,
    version: &'static str,
    commit: String,
    batch_max: u16,
    pub(super) cases: Vec<Case>,
    /// Bookings per second of the database alone, in batches of 100.
    database_alone: Vec<f64>,
    pub(super) comparisons: Vec<Comparison>,
    pub(super) trials: Trials,
}

impl Report {
    pub(super) async fn new(
        batch_max: u16,
        cases: Vec<Case>,
        database_alone: Vec<f64>,
        comparisons: Vec<Comparison>,
        trials: Trials,
        server: &LocalPostgres,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            machine: machine(),
            postgres: server.version().await?,
            version: env!("CARGO_PKG_VERSION"),
            commit: commit(),
            batch_max,
            cases,
            database_alone,
            comparisons,
            trials,
        })
    }

    /// Returns the rate over HTTP, relative to the rate of the database alone.
    fn of_database_alone(&self) -> f64 {
        self.cases
            .iter()
            .find(|case| case.is(LIMITED))
            .map_or(0.0, |case| {
                case.grouped().bookings_per_second / self.database_alone()
            })
    }

    /// Returns the median rate of the database alone, in bookings per second.
    pub(super) fn database_alone(&self) -> f64 {
        median(self.database_alone.clone())
    }
}

/// Returns the processor's name and the number of cores.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{processor}, {cores} cores")
}

/// Returns the commit of the working directory, or "unknown" outside a git checkout.
fn commit() -> String {
    Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map_or_else(
            || "unknown".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{}\n", self.rates(), self.costs())?;
        writeln!(
            f,
            "database alone, batches of 100: {:.0} bookings/s; over HTTP with {} connections: \
             {:.2} of that",
            self.database_alone(),
            LIMITED.1,
            self.of_database_alone(),
        )?;
        for compared in &self.comparisons {
            writeln!(
                f,
                "{}, with {}: {:.0} bookings/s; {:.2} of the rate without",
                compared.load,
                compared.circumstance,
                medians(&compared.with).bookings_per_second,
                compared.ratio(),
            )?;
        }
        writeln!(f, "{}", self.trials)?;
        write!(
            f,
            "{} · {} · ticketing {} ({})",
            self.machine, self.postgres, self.version, self.commit
        )
    }
}

impl Report {
    /// Returns the table of rates and latencies.
    fn rates(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header([
            "load",
            "connections",
            "one by one/s",
            "grouped/s",
            "ratio",
            "Redis/s",
            "p50 ms",
            "grouped p50",
            "Redis p50",
            "p99 ms",
            "grouped p99",
            "Redis p99",
        ]);
        for case in &self.cases {
            let (one, group, peer) = (case.one_by_one(), case.grouped(), case.peer());
            let of_peer = |text: &dyn Fn(Measured) -> String| peer.map_or("–".to_owned(), text);
            table.add_row([
                case.mode.clone(),
                case.connections.to_string(),
                format!("{:.0}", one.bookings_per_second),
                format!("{:.0}", group.bookings_per_second),
                format!("{:.1}", group.bookings_per_second / one.bookings_per_second),
                of_peer(&|peer| format!("{:.0}", peer.bookings_per_second)),
                format!("{:.2}", one.p50_ms),
                format!("{:.2}", group.p50_ms),
                of_peer(&|peer| format!("{:.2}", peer.p50_ms)),
                format!("{:.2}", one.p99_ms),
                format!("{:.2}", group.p99_ms),
                of_peer(&|peer| format!("{:.2}", peer.p99_ms)),
            ]);
        }
        table::align_figures(&mut table);
        table
    }

    /// Returns the table of what each booking costs with group commit.
    fn costs(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header([
            "load",
            "connections",
            "api µs",
            "PostgreSQL µs",
            "load tool µs",
            "log bytes",
        ]);
        for case in &self.cases {
            let cost = case.grouped().cost;
            table.add_row([
                case.mode.clone(),
                case.connections.to_string(),
                format!("{:.1}", cost.api_micros),
                format!("{:.1}", cost.database_micros),
                format!("{:.1}", cost.load_micros),
                format!("{:.0}", cost.log_bytes),
            ]);
        }
        table::align_figures(&mut table);
        table
    }
}
