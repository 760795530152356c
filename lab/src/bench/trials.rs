//! Trials: measurements that are not compared with a transaction per booking.
//!
//! They are a crowd of connections, a backlog of expired holds, a steady rate, and the admin
//! listener.

use std::{fmt, time::Duration};

use anyhow::Context;
use serde::Serialize;
use shared::{local_postgres::LocalPostgres, show};
use tokio::time::{Instant, sleep};

use super::admin_latency::Admin;
use crate::{
    environment::{self, Environment},
    expiry_lag::{Lag, expiry_lag},
    stress::{self, Mode},
};

/// Results of all trials.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trials {
    pub(super) crowd: Crowd,
    pub(super) backlog: Backlog,
    pub(super) steady: Steady,
    pub(super) open_loop: OpenLoop,
    pub(super) admin: Admin,
}

impl fmt::Display for Trials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            crowd,
            backlog,
            steady,
            open_loop,
            admin,
        } = self;
        let megabytes =
            |mb: Option<f64>| mb.map_or_else(|| "unknown".to_owned(), |mb| format!("{mb:.0} MB"));
        writeln!(
            f,
            "{} connections on a show that sells out: {:.0} requests/s, {} errors, \
             api memory {}; while they are idle {}",
            crowd.connections,
            crowd.requests_per_second,
            crowd.errors,
            megabytes(crowd.memory_mb),
            megabytes(crowd.idle_memory_mb),
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
        let latency = open_loop.latency_ms;
        writeln!(
            f,
            "{:.0} bookings/s of one show, each sent when it is due: {:.2} ms (median), {:.2} ms (p99), \
             {:.2} ms (p99.9)",
            open_loop.bookings_per_second, latency.p50, latency.p99, latency.p999
        )?;
        if let Some(slowest) = admin.slowest() {
            write!(
                f,
                "{} jobs and as many bookings: the admin listener's slowest endpoint is {}, \
                 {:.1} ms (median)",
                admin.jobs, slowest.path, slowest.median_ms
            )?;
        }
        Ok(())
    }
}

/// Result of many open connections on one show that sells out.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Crowd {
    pub(super) connections: u32,
    pub(super) requests: u64,
    pub(super) requests_per_second: f64,
    pub(super) errors: u64,
    /// Peak memory of the api; `None` if the operating system does not report it.
    pub(super) memory_mb: Option<f64>,
    /// Its memory with as many connections that are idle, after a booking on each.
    pub(super) idle_memory_mb: Option<f64>,
}

/// Result of one worker that starts with a backlog of overdue bookings of one show.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Backlog {
    pub(super) bookings: i32,
    /// Time from the start of the worker until every seat is available again.
    pub(super) seconds: f64,
}

/// Result of a steady rate: how late holds fail while new ones are made.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Steady {
    pub(super) bookings_per_second: f64,
    pub(super) lag: Lag,
}

/// Result of an open loop: requests are sent when they are due, however slow the answers are.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OpenLoop {
    pub(super) bookings_per_second: f64,
    pub(super) latency_ms: stress::Latency,
}

/// Number of trials.
pub(super) const COUNT: u64 = 5;

/// Books one show 5,000 times per second, and measures how long after they were due bookings are
/// answered.
pub(super) async fn open_loop(server: &LocalPostgres, batch_max: u16) -> anyhow::Result<OpenLoop> {
    let environment = Environment::start(server, batch_max).await?;
    let report = environment
        .put_load(&stress::Args {
            connections: 128,
            duration: 30,
            rate: Some(5000),
            ..stress::Args::quiet(Mode::Hot)
        })
        .await?;
    environment.clear().await?;
    Ok(OpenLoop {
        bookings_per_second: report.bookings_per_second,
        latency_ms: report.latency_ms,
    })
}

/// Sells 1,000 seats to 10,000 clients, each with its own connection.
pub(super) async fn crowd(server: &LocalPostgres, batch_max: u16) -> anyhow::Result<Crowd> {
    let connections = 10_000;
    let idle_memory_mb = idle(server, batch_max, connections).await?;
    let environment = Environment::start(server, batch_max).await?;
    let report = environment
        .put_load(&stress::Args {
            connections,
            seats: 1000,
            requests: 200_000,
            ..stress::Args::quiet(Mode::Sellout)
        })
        .await?;
    let crowd = Crowd {
        connections,
        requests: report.requests,
        requests_per_second: report.requests_per_second(),
        errors: report.errors.values().sum(),
        memory_mb: environment.api.peak_memory_mb(),
        idle_memory_mb,
    };
    environment.clear().await?;
    Ok(crowd)
}

/// Returns the memory of an api with idle connections, each of which has booked.
async fn idle(
    server: &LocalPostgres,
    batch_max: u16,
    connections: u32,
) -> anyhow::Result<Option<f64>> {
    let environment = Environment::start(server, batch_max).await?;
    let load = environment.load(&stress::Args {
        connections,
        ..stress::Args::quiet(Mode::Hot)
    });
    let mut crowd = stress::gather(&load).await?;
    crowd.book_once().await?;
    let memory_mb = environment.api.memory_mb();
    drop(crowd);
    environment.clear().await?;
    Ok(memory_mb)
}

/// Lets 100,000 holds of one show run out, then measures how long one worker takes to fail them.
pub(super) async fn backlog(server: &LocalPostgres, batch_max: u16) -> anyhow::Result<Backlog> {
    let environment = Environment::start(server, batch_max).await?;
    let bookings = 100_000;
    let load = stress::Args {
        connections: 128,
        seats: bookings,
        requests: bookings.unsigned_abs() + 1,
        // Longer than it takes to book them and to verify them.
        hold_seconds: Some(30),
        ..stress::Args::quiet(Mode::Sellout)
    };
    environment.put_load(&load).await?;
    let database = environment.connect().await?;
    environment::holds_have_run_out(&database).await?;
    let pool = database.pool;

    let began = Instant::now();
    let worker = environment.start_worker().await?;
    let is_at_work = "SELECT EXISTS (SELECT FROM bookings WHERE resolved_at IS NULL)";
    while sqlx::query_scalar(is_at_work).fetch_one(&pool).await? {
        sleep(Duration::from_millis(10)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    pool.close().await;
    worker.stop().await?;
    environment.clear().await?;
    Ok(Backlog { bookings, seconds })
}

/// Books one show 5,000 times per second, confirms nothing, and lets one worker fail the holds.
pub(super) async fn steady(server: &LocalPostgres, batch_max: u16) -> anyhow::Result<Steady> {
    let environment = Environment::start(server, batch_max).await?;
    let worker = environment.start_worker().await?;
    let report = environment
        .put_load(&stress::Args {
            connections: 128,
            duration: 30,
            rate: Some(5000),
            hold_seconds: Some(10),
            ..stress::Args::quiet(Mode::Hot)
        })
        .await?;
    let database = environment.connect().await?;
    let shows = show::list(&database, &show::Filter::default(), None, 1).await?;
    let show_ids: Vec<i64> = shows.iter().map(|show| show.id.0).collect();
    let lag = expiry_lag(&database.pool, &show_ids)
        .await?
        .context("no hold expired")?;
    database.pool.close().await;
    worker.stop().await?;
    environment.clear().await?;
    Ok(Steady {
        bookings_per_second: report.bookings_per_second,
        lag,
    })
}
