//! The report of a benchmark, as a table and as JSON.

use std::{fmt, process::Command};

use comfy_table::{Table, presets};
use serde::Serialize;
use shared::local_postgres::LocalPostgres;

use super::{
    loads::{COMPARED, LIMITED},
    trials::Trials,
};
use crate::{median::median, stress::Mode, table};

/// One measurement.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measured {
    pub(super) bookings_per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
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
}

impl Case {
    pub(super) fn new(mode: Mode, connections: u32) -> Self {
        Self {
            mode: mode_name(mode),
            connections,
            one_by_one: Vec::new(),
            grouped: Vec::new(),
        }
    }

    fn is(&self, (mode, connections): (Mode, u32)) -> bool {
        self.mode == mode_name(mode) && self.connections == connections
    }

    pub(super) fn add(&mut self, one_by_one: bool, measured: Measured) {
        if one_by_one {
            self.one_by_one.push(measured);
        } else {
            self.grouped.push(measured);
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
}

/// Measurements of the same load with and without a feature in use.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Comparison {
    pub(super) without: Vec<Measured>,
    pub(super) with: Vec<Measured>,
}

impl Comparison {
    /// Returns the rate with the feature, relative to the rate without it.
    ///
    /// It is the median over the pairs; the two halves of a pair are measured one after the other.
    fn ratio(&self) -> f64 {
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
    guard: Comparison,
    dashboard: Comparison,
    trials: Trials,
}

impl Report {
    pub(super) async fn new(
        batch_max: u16,
        cases: Vec<Case>,
        database_alone: Vec<f64>,
        guard: Comparison,
        dashboard: Comparison,
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
            guard,
            dashboard,
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
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header([
            "load",
            "connections",
            "one by one/s",
            "grouped/s",
            "ratio",
            "p50 ms",
            "grouped p50",
            "p99 ms",
            "grouped p99",
        ]);
        for case in &self.cases {
            let (one, group) = (case.one_by_one(), case.grouped());
            table.add_row([
                case.mode.clone(),
                case.connections.to_string(),
                format!("{:.0}", one.bookings_per_second),
                format!("{:.0}", group.bookings_per_second),
                format!("{:.1}", group.bookings_per_second / one.bookings_per_second),
                format!("{:.2}", one.p50_ms),
                format!("{:.2}", group.p50_ms),
                format!("{:.2}", one.p99_ms),
                format!("{:.2}", group.p99_ms),
            ]);
        }
        table::align_figures(&mut table);
        writeln!(f, "{table}\n")?;
        writeln!(
            f,
            "database alone, batches of 100: {:.0} bookings/s; over HTTP with {} connections: \
             {:.2} of that",
            self.database_alone(),
            LIMITED.1,
            self.of_database_alone(),
        )?;
        for (beside, compared) in [
            ("API keys and rate limits", &self.guard),
            ("the dashboard open", &self.dashboard),
        ] {
            writeln!(
                f,
                "{}, {} connections, with {beside}: {:.0} bookings/s; {:.2} of the rate without",
                mode_name(COMPARED.0),
                COMPARED.1,
                medians(&compared.with).bookings_per_second,
                compared.ratio(),
            )?;
        }
        let Trials {
            crowd,
            backlog,
            steady,
            admin,
        } = &self.trials;
        writeln!(
            f,
            "{} connections on a show that sells out: {:.0} requests/s, {} errors, \
             api memory {}",
            crowd.connections,
            crowd.requests_per_second,
            crowd.errors,
            crowd
                .memory_mb
                .map_or_else(|| "unknown".to_owned(), |mb| format!("{mb:.0} MB")),
        )?;
        writeln!(
            f,
            "{} overdue bookings of one show, one worker: all seats available after {:.1} s",
            backlog.bookings, backlog.seconds
        )?;
        writeln!(
            f,
            "{:.0} bookings/s of one show, none confirmed, one worker: expiry lag {:.2} s (median), \
             {:.2} s (p99), {:.2} s (max)",
            steady.bookings_per_second,
            steady.lag.median_seconds,
            steady.lag.p99_seconds,
            steady.lag.longest_seconds
        )?;
        if let Some(slowest) = admin.slowest() {
            writeln!(
                f,
                "{} jobs and as many bookings: the admin listener's slowest endpoint is {}, \
                 {:.1} ms (median)",
                admin.jobs, slowest.path, slowest.median_ms
            )?;
        }
        write!(
            f,
            "{} · {} · ticketing {} ({})",
            self.machine, self.postgres, self.version, self.commit
        )
    }
}
