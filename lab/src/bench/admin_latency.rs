//! Measures the cost of the admin listener: an open dashboard, and queries over a million jobs.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use shared::local_postgres::LocalPostgres;
use sqlx::PgPool;
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;

use super::fill::fill;
use crate::{
    environment::Environment,
    median::median,
    stress::http::{Connection, Target, get},
};

/// Requests that the dashboard sends in its costliest section, and their interval.
const PAGE: [&str; 3] = ["/overview", "/workers", "/sales"];
const EVERY: Duration = Duration::from_secs(2);

/// Polls as an open dashboard does, until the returned handle is dropped.
pub(super) fn open_page(admin_url: &str) -> anyhow::Result<AbortOnDropHandle<()>> {
    let target: Target = admin_url.parse()?;
    let looking: JoinHandle<()> = tokio::spawn(async move {
        if let Err(error) = query(&target).await {
            tracing::error!(error = format!("{error:#}"), "polling the dashboard failed");
        }
    });
    Ok(AbortOnDropHandle::new(looking))
}

async fn query(target: &Target) -> anyhow::Result<()> {
    let mut connection = Connection::open(target).await?;
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        for path in PAGE {
            let reply = connection.send(&get(target, path)).await?;
            ensure!(reply.status == 200, "{path}: {}", reply.status);
        }
    }
}

/// Latency of the admin listener.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Admin {
    /// Number of jobs in the database, and of bookings.
    pub(super) jobs: i64,
    answers: Vec<Answer>,
}

/// Latency of one endpoint.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    pub(super) path: String,
    pub(super) median_ms: f64,
    longest_ms: f64,
}

impl Admin {
    pub(super) fn slowest(&self) -> Option<&Answer> {
        let order = |a: &&Answer, b: &&Answer| a.median_ms.total_cmp(&b.median_ms);
        self.answers.iter().max_by(order)
    }
}

const JOBS: i64 = 1_000_000;

/// Number of requests to each endpoint.
const TIMES: usize = 25;

/// Measures every query of the admin listener in a large database.
///
/// It has a million jobs, in all states, and a million bookings.
pub(super) async fn measure(server: &LocalPostgres, batch_max: u16) -> anyhow::Result<Admin> {
    let environment = Environment::start(server, batch_max).await?;
    let pool = environment.connect().await?.pool;
    fill(&pool, JOBS, 1).await?;
    fill_queue(&pool).await?;
    let job: String = sqlx::query_scalar("SELECT id FROM apalis.jobs ORDER BY id DESC LIMIT 1")
        .fetch_one(&pool)
        .await?;
    pool.close().await;
    let list = "/queues/expire-bookings/jobs";
    let mut paths = vec![
        "/".to_owned(),
        "/metrics".to_owned(),
        "/overview".to_owned(),
        "/sales".to_owned(),
        "/queues".to_owned(),
        "/workers".to_owned(),
        "/interventions".to_owned(),
        "/database".to_owned(),
        "/audit".to_owned(),
        "/bookings/777777".to_owned(),
        format!("/jobs/{job}"),
        list.to_owned(),
        format!("{list}?bookingId=777777"),
        format!("{list}?showId=7"),
    ];
    for state in ["scheduled", "due", "running", "failed", "done", "dead"] {
        paths.push(format!("{list}?state={state}"));
        paths.push(format!("{list}/count?state={state}"));
    }
    let target: Target = environment.admin_url.parse()?;
    let mut connection = Connection::open(&target).await?;
    let mut answers = Vec::new();
    for path in paths {
        let mut took = Vec::new();
        for _ in 0..TIMES {
            let began = Instant::now();
            let reply = connection.send(&get(&target, &path)).await?;
            ensure!(reply.status == 200, "{path}: {}", reply.status);
            took.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        answers.push(Answer {
            path,
            longest_ms: took.iter().copied().fold(0.0, f64::max),
            median_ms: median(took),
        });
    }
    environment.clear().await?;
    Ok(Admin {
        jobs: JOBS,
        answers,
    })
}

/// Creates a job for each booking, as if no two clients had booked at the same time.
async fn fill_queue(pool: &PgPool) -> anyhow::Result<()> {
    let statements = [
        // The first ten characters of a ULID encode its time in milliseconds.
        "INSERT INTO apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, lock_at, done_at, last_result)
         SELECT (SELECT string_agg(substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ((millis >> (5 * place)) & 31)::integer + 1, 1), '' ORDER BY place DESC)
                 FROM generate_series(0, 9) AS place) || lpad(upper(to_hex(id)), 16, '0'),
                'expire-bookings', convert_to('{\"bookingIds\" : [' || id || ']}', 'UTF8'),
                CASE WHEN kind < 50 THEN 'Pending' WHEN kind < 60 THEN 'Pending' WHEN kind < 61 THEN 'Running' WHEN kind < 71 THEN 'Failed'
                     WHEN kind < 91 THEN 'Done' ELSE 'Killed' END,
                CASE WHEN kind >= 60 THEN 1 ELSE 0 END, 12,
                CASE WHEN kind BETWEEN 50 AND 59 THEN now() - id * interval '1 ms' ELSE now() + id * interval '1 s' END,
                CASE WHEN kind >= 60 THEN now() END, CASE WHEN kind >= 71 THEN now() - id * interval '1 ms' END,
                CASE WHEN kind >= 91 OR kind BETWEEN 61 AND 70 THEN '{\"Err\": \"the database is not available\"}'::jsonb END
         FROM bookings, LATERAL (SELECT id % 100 AS kind, floor(extract(epoch FROM created_at) * 1000)::bigint AS millis) AS made",
        "ANALYZE",
    ];
    let mut connection = pool.acquire().await?;
    sqlx::query("SET statement_timeout = 0")
        .execute(&mut *connection)
        .await?;
    for statement in statements {
        sqlx::query(statement)
            .execute(&mut *connection)
            .await
            .context("cannot create a million jobs")?;
    }
    // Not returned to the pool, because this session's statement timeout is off.
    connection.close().await?;
    Ok(())
}
