//! Calculates the resources that a sale needs. Pure functions.

use std::fmt;

use api::config::BATCH_LANES_MAX;
use serde::Serialize;

use super::cost::Costs;
use crate::cost::Cost;

/// A sale, and the resources available for it.
#[derive(Debug, Clone, clap::Args, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sale {
    /// Bookings per second
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    bookings_per_second: u32,

    /// Number of shows over which the bookings are spread
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) shows: u32,

    /// Percentage of bookings that are confirmed; the others expire
    #[arg(long, value_name = "PERCENT", default_value_t = 70, value_parser = clap::value_parser!(u8).range(0..=100))]
    confirmed: u8,

    /// Maximum utilization of processors and disk, in percent
    ///
    /// The rest is for peaks and for the database's background work.
    #[arg(long, value_name = "PERCENT", default_value_t = 70, value_parser = clap::value_parser!(u8).range(1..=100))]
    busy: u8,

    /// Processors of the database server, each as fast as those of this machine
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    database_processors: u32,

    /// Write-ahead log that the disk of the database server can write, in MB per second
    #[arg(long, value_name = "MB", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    log_mb_per_second: u32,
}

impl fmt::Display for Sale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bookings/s over {} shows, {} % of them confirmed, processors and disk {} % busy",
            self.bookings_per_second, self.shows, self.confirmed, self.busy
        )
    }
}

/// A resource that the sale needs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Need {
    pub(super) of: &'static str,
    pub(super) amount: f64,
    pub(super) unit: &'static str,
    /// Share of the available amount; `None` for a resource that more processes provide.
    pub(super) share: Option<f64>,
}

/// Resources that the sale needs, and the bottleneck among them.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Plan {
    pub(super) needs: Vec<Need>,
    /// The resource that runs out first.
    pub(super) first: &'static str,
    /// Rate at which the first resource runs out.
    pub(super) most_bookings_per_second: f64,
}

impl Plan {
    pub(super) fn new(sale: &Sale, costs: &Costs) -> Self {
        let rate = f64::from(sale.bookings_per_second);
        let confirmed = f64::from(sale.confirmed) / 100.0;
        let busy = f64::from(sale.busy) / 100.0;
        let Cost {
            api_micros,
            worker_micros,
            database_micros,
            log_bytes,
            ..
        } = Cost::sum(&[
            (rate, costs.reserve),
            (rate * confirmed, costs.confirm),
            (rate * (1.0 - confirmed), costs.expire),
        ]);
        let processors = |micros: f64| micros / 1e6 / busy;
        let log = log_bytes / 1e6 / busy;
        let need = |of, amount, unit, there_is: Option<u32>| Need {
            of,
            amount,
            unit,
            share: there_is.map(|there_is| amount / f64::from(there_is)),
        };
        let needs = vec![
            need(
                "api",
                processors(api_micros),
                "processors, on any number of machines",
                None,
            ),
            need(
                "worker",
                processors(worker_micros),
                "processors, on any number of machines",
                None,
            ),
            need(
                "PostgreSQL",
                processors(database_micros),
                "processors, on one machine",
                Some(sale.database_processors),
            ),
            need(
                "PostgreSQL's log",
                log,
                "MB/s",
                Some(sale.log_mb_per_second),
            ),
            // A lane waits for one transaction at a time, which keeps about one processor of the
            // database busy. Lanes with the same number in two apis have the same shows and wait
            // for each other; a show belongs to one lane of each api.
            need(
                "lanes of each api",
                processors(rate * costs.reserve.database_micros),
                "for reserving",
                Some(sale.shows.min(BATCH_LANES_MAX.into())),
            ),
        ];
        let share = |need: &&Need| need.share.unwrap_or_default();
        let first = needs.iter().max_by(|a, b| share(a).total_cmp(&share(b)));
        let (first, share) = first.map_or(("nothing", 0.0), |need| (need.of, share(&need)));
        Self {
            most_bookings_per_second: rate / share,
            first,
            needs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALE: Sale = Sale {
        bookings_per_second: 10_000,
        shows: 100,
        confirmed: 75,
        busy: 50,
        database_processors: 8,
        log_mb_per_second: 100,
    };

    const fn cost(api: f64, worker: f64, database: f64, log: f64) -> Cost {
        Cost {
            api_micros: api,
            worker_micros: worker,
            database_micros: database,
            load_micros: 0.0,
            log_bytes: log,
        }
    }

    #[test]
    fn needs_are_what_is_done_times_what_it_costs() {
        let costs = Costs {
            reserve: cost(30.0, 0.0, 40.0, 1000.0),
            confirm: cost(20.0, 0.0, 20.0, 400.0),
            expire: cost(0.0, 8.0, 40.0, 800.0),
        };
        let plan = Plan::new(&SALE, &costs);
        let amounts: Vec<f64> = plan.needs.iter().map(|need| need.amount).collect();
        // Each booking takes 45 µs of the api, 2 µs of the worker, 65 µs of the database and 1,500
        // bytes of log. The need is twice that, because only half may be used.
        assert_eq!(amounts, [0.9, 0.04, 1.3, 30.0, 0.8]);
        assert_eq!(plan.first, "PostgreSQL's log");
        assert_eq!(format!("{:.0}", plan.most_bookings_per_second), "33333");
    }

    #[test]
    fn one_show_has_one_lane() {
        let costs = Costs {
            reserve: cost(30.0, 0.0, 40.0, 1000.0),
            confirm: cost(0.0, 0.0, 0.0, 0.0),
            expire: cost(0.0, 0.0, 0.0, 0.0),
        };
        let plan = Plan::new(&Sale { shows: 1, ..SALE }, &costs);
        assert_eq!(plan.first, "lanes of each api");
        assert_eq!(format!("{:.0}", plan.most_bookings_per_second), "12500");
    }

    #[test]
    fn what_is_used_most_runs_out_first() {
        let costs = Costs {
            reserve: cost(30.0, 0.0, 400.0, 100.0),
            confirm: cost(0.0, 0.0, 0.0, 0.0),
            expire: cost(0.0, 0.0, 0.0, 0.0),
        };
        let plan = Plan::new(&SALE, &costs);
        assert_eq!(plan.first, "PostgreSQL");
        assert_eq!(format!("{:.0}", plan.most_bookings_per_second), "10000");
    }
}
