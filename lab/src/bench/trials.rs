//! Trials: measurements that are not compared with a transaction per booking.
//!
//! They are a crowd of connections, a backlog of expired holds, a steady rate, and the admin
//! listener.

use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use shared::{local_postgres::LocalPostgres, show};
use tokio::time::{Instant, sleep};

use super::admin_latency::Admin;
use crate::{
    environment::{self, DATABASE, Environment},
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
    pub(super) admin: Admin,
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

/// Number of trials.
pub(super) const COUNT: u64 = 4;

/// Sells 1,000 seats to 10,000 clients, each with its own connection.
pub(super) async fn crowd(server: &LocalPostgres, batch_max: u16) -> anyhow::Result<Crowd> {
    let environment = Environment::start(server, batch_max).await?;
    let connections = 10_000;
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
    };
    environment.clear().await?;
    Ok(crowd)
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
    let database = server.connect(DATABASE).await?;
    environment::holds_have_run_out(&database).await?;
    let pool = database.pool;

    let began = Instant::now();
    let worker = environment.start_worker()?;
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
    let worker = environment.start_worker()?;
    let report = environment
        .put_load(&stress::Args {
            connections: 128,
            duration: 30,
            rate: Some(5000),
            hold_seconds: Some(10),
            ..stress::Args::quiet(Mode::Hot)
        })
        .await?;
    let database = server.connect(DATABASE).await?;
    let shows = show::list(&database, 0, 1).await?;
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
