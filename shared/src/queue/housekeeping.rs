//! Housekeeping of the queue: rescuing and pruning, which apalis leaves to its users.

use std::time::Duration;

use sqlx::PgPool;

use crate::postgres::Error;

/// Maximum number of rows that one statement changes, which bounds how long it holds its locks.
///
/// The statements name the rows by an array, because the planner takes a limit that it does not
/// know for a tenth of the table, and would read all of it.
pub const BATCH: i64 = 1000;

/// Number of jobs that [`rescue`] released.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rescued {
    /// Jobs that will be run again.
    pub again: i64,
    /// Jobs that had no attempt left, and are now dead.
    pub dead: i64,
}

/// Releases at most [`BATCH`] jobs that were claimed longer ago than `stuck_after`.
///
/// `stuck_after` must be longer than a job may take: then the job's worker was lost, or its report
/// about the job. A rescue counts as an attempt.
///
/// Apalis also releases jobs when their worker's heartbeat stops. But it would retry a job that
/// kills its worker for ever.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn rescue(pool: &PgPool, stuck_after: Duration) -> Result<Rescued, Error> {
    let rescued = sqlx::query_as!(
        Rescued,
        r#"WITH stuck AS (
               SELECT id FROM apalis.jobs
               WHERE (status = 'Queued' OR status = 'Running') AND lock_at < now() - make_interval(secs => $1)
               ORDER BY lock_at LIMIT $2 FOR UPDATE SKIP LOCKED),
           rescued AS (
               UPDATE apalis.jobs
               SET status = CASE WHEN attempts + 1 < max_attempts THEN 'Pending' ELSE 'Killed' END,
                   attempts = attempts + 1,
                   done_at = CASE WHEN attempts + 1 < max_attempts THEN NULL ELSE now() END,
                   last_result = '{"Err": "its worker was lost"}',
                   lock_by = NULL, lock_at = NULL
               WHERE id = ANY (ARRAY(SELECT id FROM stuck))
               RETURNING status)
           SELECT count(*) FILTER (WHERE status = 'Pending') AS "again!",
                  count(*) FILTER (WHERE status = 'Killed') AS "dead!"
           FROM rescued"#,
        stuck_after.as_secs_f64(),
        BATCH,
    )
    .fetch_one(pool)
    .await?;
    Ok(rescued)
}

/// Retention of jobs that have ended.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// How long done jobs are kept, from when they were done.
    pub done: Duration,
    /// Maximum number of done jobs; older ones are deleted sooner.
    pub done_max: i64,
    /// How long dead jobs are kept, from when they died.
    pub dead: Duration,
}

/// Deletes at most [`BATCH`] done jobs past their retention, oldest first. Returns how many.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn prune_done(pool: &PgPool, keep: &Retention) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        "DELETE FROM apalis.jobs WHERE id = ANY (ARRAY(
             SELECT id FROM apalis.jobs
             WHERE status = 'Done' AND done_at <= greatest(
                 now() - make_interval(secs => $1),
                 (SELECT done_at FROM apalis.jobs WHERE status = 'Done' ORDER BY done_at DESC OFFSET $2 LIMIT 1))
             ORDER BY done_at LIMIT $3 FOR UPDATE SKIP LOCKED))",
        keep.done.as_secs_f64(),
        keep.done_max,
        BATCH,
    )
    .execute(pool)
    .await?;
    Ok(deleted.rows_affected())
}

/// Deletes at most [`BATCH`] dead jobs past their retention. Returns how many.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn prune_dead(pool: &PgPool, keep: &Retention) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        "DELETE FROM apalis.jobs WHERE id = ANY (ARRAY(
             SELECT id FROM apalis.jobs
             WHERE (status = 'Killed' OR (status = 'Failed' AND attempts >= max_attempts))
               AND done_at < now() - make_interval(secs => $1)
             ORDER BY done_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
        keep.dead.as_secs_f64(),
        BATCH,
    )
    .execute(pool)
    .await?;
    Ok(deleted.rows_affected())
}

/// Retention of interventions, in days.
const INTERVENTIONS_KEPT_DAYS: i32 = 90;

/// Deletes at most [`BATCH`] interventions older than 90 days, oldest first. Returns how many.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn prune_interventions(pool: &PgPool) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        "DELETE FROM interventions WHERE id = ANY (ARRAY(
             SELECT id FROM (SELECT id, at FROM interventions ORDER BY id LIMIT $2) AS oldest
             WHERE at < now() - make_interval(days => $1)))",
        INTERVENTIONS_KEPT_DAYS,
        BATCH,
    )
    .execute(pool)
    .await?;
    Ok(deleted.rows_affected())
}

/// Deletes at most [`BATCH`] workers silent for longer than `silent_for`. Returns how many.
///
/// It keeps workers that have a job running. Each start of a worker leaves one row.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn prune_workers(pool: &PgPool, silent_for: Duration) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        "DELETE FROM apalis.workers WHERE id = ANY (ARRAY(
             SELECT id FROM apalis.workers
             WHERE last_seen < now() - make_interval(secs => $1)
               AND id NOT IN (SELECT lock_by FROM apalis.jobs
                              WHERE (status = 'Queued' OR status = 'Running') AND lock_by IS NOT NULL)
             ORDER BY last_seen LIMIT $2 FOR UPDATE SKIP LOCKED))",
        silent_for.as_secs_f64(),
        BATCH,
    )
    .execute(pool)
    .await?;
    Ok(deleted.rows_affected())
}
