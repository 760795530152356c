//! Queues and their depth.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{AssertSqlSafe, FromRow, PgPool};

use crate::{jobs, postgres::Error, queue::JobState};

/// Limit of counts: a count of this many may stand for more.
pub const MAX_COUNTED: i64 = 100_000;

/// Queue and its depth.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// Name of the queue.
    pub name: String,
    /// Pause of the queue; `None` while its jobs are handed out.
    pub paused: Option<Pause>,
    /// Number of jobs in each state, counted up to [`MAX_COUNTED`].
    pub depth: BTreeMap<JobState, i64>,
    /// Time that the oldest due job has waited, in seconds; 0 when none is due.
    pub due_lag_seconds: f64,
    /// Id of the oldest due job.
    pub oldest_due_job: Option<String>,
    /// Number of jobs done in the last minute, counted up to [`MAX_COUNTED`].
    pub done_last_minute: i64,
}

/// Pause of a queue.
#[derive(Debug, Clone, Serialize)]
pub struct Pause {
    /// Time since which the queue is paused.
    pub at: DateTime<Utc>,
    /// Actor that paused it: the name of an API key, or an address.
    pub by: String,
}

#[derive(FromRow)]
struct QueueRow {
    name: String,
    paused_at: Option<DateTime<Utc>>,
    paused_by: Option<String>,
    counts: Vec<i64>,
    oldest_due_job: Option<String>,
    due_lag_seconds: f64,
    done_last_minute: i64,
}

/// Returns all queues: those of this program in their order, then those in which a job waits, and
/// paused ones.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn queues(pool: &PgPool) -> Result<Vec<Queue>, Error> {
    let waits = "(status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts))";
    let due = JobState::Due.condition();
    let counts = JobState::ALL.map(|state| {
        let condition = state.condition();
        format!("(SELECT count(*) FROM (SELECT FROM apalis.jobs WHERE job_type = name AND {condition} LIMIT $2) AS counted)")
    });
    let counts = counts.join(", ");
    // Steps from one queue that has a waiting job to the next, by their index.
    let sql = format!(
        "WITH RECURSIVE waiting AS (
             (SELECT job_type FROM apalis.jobs WHERE {waits} ORDER BY job_type LIMIT 1)
             UNION ALL
             SELECT (SELECT job_type FROM apalis.jobs WHERE {waits} AND job_type > waiting.job_type
                     ORDER BY job_type LIMIT 1)
             FROM waiting WHERE job_type IS NOT NULL),
         queue (name) AS (
             SELECT unnest($1::text[]) UNION SELECT queue FROM queue_pauses
             UNION SELECT job_type FROM waiting WHERE job_type IS NOT NULL)
         SELECT name, paused_at, paused_by, ARRAY[{counts}] AS counts,
                oldest.id AS oldest_due_job,
                CASE WHEN oldest.id IS NULL THEN 0
                     ELSE extract(epoch FROM now() - greatest(oldest.run_at, 'epoch')) END::float8 AS due_lag_seconds,
                (SELECT count(*) FROM (SELECT FROM apalis.jobs
                    WHERE status = 'Done' AND done_at > now() - interval '1 minute' AND job_type = name LIMIT $2)
                 AS counted) AS done_last_minute
         FROM queue LEFT JOIN queue_pauses ON queue = name
         LEFT JOIN LATERAL (SELECT id, run_at FROM apalis.jobs WHERE job_type = name AND {due}
                            ORDER BY run_at LIMIT 1) AS oldest ON true
         ORDER BY array_position($1::text[], name), name"
    );
    let rows: Vec<QueueRow> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(jobs::QUEUES.map(str::to_owned))
        .bind(MAX_COUNTED)
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().map(Queue::from).collect())
}

impl From<QueueRow> for Queue {
    fn from(row: QueueRow) -> Self {
        Self {
            name: row.name,
            paused: row
                .paused_at
                .zip(row.paused_by)
                .map(|(at, by)| Pause { at, by }),
            depth: JobState::ALL.into_iter().zip(row.counts).collect(),
            due_lag_seconds: row.due_lag_seconds,
            oldest_due_job: row.oldest_due_job,
            done_last_minute: row.done_last_minute,
        }
    }
}
