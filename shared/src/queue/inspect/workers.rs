//! Workers.

use serde::Serialize;
use sqlx::{AssertSqlSafe, FromRow, PgPool};

use crate::{postgres::Error, queue::JobState};

/// Worker. One process has a worker for each queue.
#[derive(Debug, Clone, Serialize, FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// Name of the worker, a new one at each start.
    pub id: String,
    /// Queue that it consumes.
    pub queue: String,
    /// Time since its last heartbeat, in seconds. It sends one every 5 s.
    pub heartbeat_age_seconds: f64,
    /// Ids of the jobs that it is running.
    pub running: Vec<String>,
}

/// Returns at most 500 workers that were seen in the last hour, last seen first.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn workers(pool: &PgPool) -> Result<Vec<Worker>, Error> {
    let running = JobState::Running.condition();
    let sql = format!(
        "WITH in_hand AS MATERIALIZED (SELECT id, lock_by FROM apalis.jobs WHERE {running} ORDER BY lock_at LIMIT 10000)
         SELECT id, worker_type AS queue,
                extract(epoch FROM now() - least(last_seen, now()))::float8 AS heartbeat_age_seconds,
                ARRAY(SELECT in_hand.id FROM in_hand WHERE lock_by = workers.id) AS running
         FROM apalis.workers WHERE last_seen > now() - interval '1 hour'
         ORDER BY last_seen DESC LIMIT 500"
    );
    Ok(sqlx::query_as(AssertSqlSafe(sql)).fetch_all(pool).await?)
}
