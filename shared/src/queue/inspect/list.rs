//! Lists of jobs.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{AssertSqlSafe, FromRow, PgPool, Postgres, QueryBuilder};
use ulid::Ulid;

use crate::{
    booking::query,
    id::{BookingId, ShowId},
    jobs::ExpireBookings,
    postgres::{Engine, Error},
    queue::JobState,
    timestamp::Timestamp,
};

/// Job in a queue, as in lists.
#[derive(Debug, Clone, Serialize, FromRow)]
#[serde(rename_all = "camelCase")]
pub struct QueuedJob {
    /// Id of the job, a ULID.
    pub id: String,
    /// Name of its queue.
    pub queue: String,
    /// State of the job.
    pub state: JobState,
    /// Number of times it was started.
    pub attempts: i32,
    /// Number of times it may be started before it is dead.
    pub max_attempts: i32,
    /// Time from which it may run.
    pub run_at: Timestamp,
    /// Time at which a worker last claimed it.
    pub taken_at: Option<Timestamp>,
    /// Name of the worker that last claimed it.
    pub taken_by: Option<String>,
    /// Time at which it last ended.
    pub ended_at: Option<Timestamp>,
    /// Error of its last failure.
    pub error: Option<String>,
}

/// Returns the SQL columns of a [`QueuedJob`].
pub(super) fn columns() -> String {
    let states =
        JobState::ALL.map(|state| format!("WHEN {} THEN '{}'", state.condition(), state.name()));
    format!(
        "id, job_type AS queue, CASE {} END AS state, attempts, max_attempts, run_at,
         lock_at AS taken_at, lock_by AS taken_by, done_at AS ended_at, last_result->>'Err' AS error",
        states.join(" ")
    )
}

/// Filter of a list of jobs. A field that is `None` does not restrict the list.
#[derive(Debug, Clone)]
pub struct Filter {
    /// Queue of the jobs.
    pub queue: String,
    /// State of the jobs.
    pub state: Option<JobState>,
    /// Booking that the jobs name.
    pub booking_id: Option<BookingId>,
    /// Show of a booking that the jobs name: one of its newest 1,000, or of its next 1,000 holds to
    /// expire.
    pub show_id: Option<ShowId>,
}

/// Position in a list of jobs, after one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Time by which the list is ordered; `None` in a list of all states, which is ordered by id.
    pub at: Option<DateTime<Utc>>,
    /// Id of the job.
    pub id: String,
}

impl Filter {
    /// Returns the column by which the list is ordered, and whether the order is descending.
    fn order(&self) -> (Option<&'static str>, bool) {
        match self.state {
            Some(JobState::Scheduled | JobState::Due | JobState::Failed) => (Some("run_at"), false),
            Some(JobState::Running) => (Some("lock_at"), false),
            Some(JobState::Done | JobState::Dead) => (Some("done_at"), true),
            None => (None, true),
        }
    }

    /// Returns whether the cursor is a position in this list, not in a list with another order.
    #[must_use]
    pub fn has(&self, cursor: &Cursor) -> bool {
        self.order().0.is_some() == cursor.at.is_some()
    }

    /// Returns the cursor at which the list continues after this job.
    #[must_use]
    pub fn cursor(&self, last: &QueuedJob) -> Cursor {
        let at = match self.order().0 {
            Some("run_at") => Some(last.run_at),
            Some("lock_at") => last.taken_at,
            Some(_) => last.ended_at,
            None => None,
        };
        Cursor {
            at: at.map(Into::into),
            id: last.id.clone(),
        }
    }

    /// Begins a statement on these jobs, up to the end of its conditions.
    async fn select(&self, pool: &PgPool, what: &str) -> Result<QueryBuilder<Postgres>, Error> {
        let mut sql = QueryBuilder::new(format!("SELECT {what} FROM "));
        if let Some(ids) = self.named_ids(pool).await? {
            // Finds the jobs by id first, whatever the requested order looks like to the planner.
            sql.push("(SELECT * FROM apalis.jobs WHERE id = ANY(");
            sql.push_bind(ids);
            sql.push(") OFFSET 0) AS jobs");
        } else {
            sql.push("apalis.jobs");
        }
        sql.push(" WHERE job_type = ");
        sql.push_bind(self.queue.clone());
        if let Some(state) = self.state {
            sql.push(" AND ");
            sql.push(state.condition());
        }
        Ok(sql)
    }

    /// Returns the ids of the jobs of the requested bookings; `None` if no booking or show is
    /// requested.
    async fn named_ids(&self, pool: &PgPool) -> Result<Option<Vec<String>>, Error> {
        let bookings = match (self.booking_id, self.show_id) {
            (None, None) => return Ok(None),
            (booking_id, show_id) => bookings_of(pool, booking_id, show_id).await?,
        };
        jobs_of(pool, &bookings).await.map(Some)
    }
}

/// Returns when each of the requested bookings was made.
async fn bookings_of(
    pool: &PgPool,
    booking_id: Option<BookingId>,
    show_id: Option<ShowId>,
) -> Result<BTreeMap<BookingId, DateTime<Utc>>, Error> {
    let rows = match (booking_id, show_id) {
        (Some(booking_id), show_id) => sqlx::query_as(
            "SELECT id, created_at FROM bookings WHERE id = $1 AND show_id = coalesce($2, show_id)",
        )
        .bind(booking_id)
        .bind(show_id)
        .fetch_all(pool)
        .await?,
        (None, show_id) => sqlx::query_as(AssertSqlSafe(format!(
            "WITH made AS NOT MATERIALIZED (
                 SELECT batches.id AS batch_id, is_extension, has_held, batches.expires_at, bookings.id, created_at, status, is_extended
                 FROM {in_batches}
                 WHERE batches.show_id = $1)
             (SELECT id, created_at FROM made WHERE NOT is_extension ORDER BY batch_id DESC, id DESC LIMIT 1000)
             UNION
             (SELECT id, created_at FROM made WHERE has_held AND is_extended = is_extension AND status = 'PENDING'
              ORDER BY expires_at LIMIT 1000)",
            // Of one show, which is on one server also on Citus.
            in_batches = query::in_batches(Engine::Postgres),
        )))
        .bind(show_id)
        .fetch_all(pool)
        .await?,
    };
    Ok(rows.into_iter().collect())
}

/// Finds the jobs that name one of these bookings.
///
/// A job's id begins with the time at which its bookings were made. So jobs are found without an
/// index on the bookings that they name, which each new job would have to write.
async fn jobs_of(
    pool: &PgPool,
    bookings: &BTreeMap<BookingId, DateTime<Utc>>,
) -> Result<Vec<String>, Error> {
    let (first, end): (Vec<String>, Vec<String>) = bookings
        .values()
        .map(DateTime::timestamp_millis)
        .collect::<BTreeSet<i64>>()
        .into_iter()
        .map(|millis| {
            let at = |millis: i64| Ulid::from_parts(millis.unsigned_abs(), 0).to_string();
            (at(millis), at(millis + 1))
        })
        .unzip();
    let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
        "SELECT id, job FROM unnest($1::text[], $2::text[]) AS made (first, ending)
         CROSS JOIN LATERAL (
             SELECT id, job FROM apalis.jobs WHERE id >= made.first AND id < made.ending OFFSET 0) AS jobs",
    )
    .bind(first)
    .bind(end)
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .filter(|(_, payload)| {
            bookings_named(payload)
                .iter()
                .any(|id| bookings.contains_key(id))
        })
        .map(|(id, _)| id)
        .collect())
}

pub(super) fn bookings_named(payload: &[u8]) -> Vec<BookingId> {
    serde_json::from_slice::<ExpireBookings>(payload)
        .map(|job| job.booking_ids)
        .unwrap_or_default()
}

/// Lists a page of jobs.
///
/// Waiting jobs come next due first, running jobs longest running first, ended jobs last ended
/// first, and jobs in all states newest first.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn jobs(
    pool: &PgPool,
    filter: &Filter,
    after: Option<&Cursor>,
    limit: i64,
) -> Result<Vec<QueuedJob>, Error> {
    let mut sql = filter.select(pool, &columns()).await?;
    let (key, is_descending) = filter.order();
    let (follows, direction) = if is_descending {
        ("<", "DESC")
    } else {
        (">", "ASC")
    };
    if let Some(Cursor { at, id }) = after {
        match (key, at) {
            (Some(key), Some(at)) => {
                sql.push(format!(" AND ({key}, id) {follows} ("));
                sql.push_bind(*at);
                sql.push(", ");
            }
            _ => {
                sql.push(format!(" AND id {follows} ("));
            }
        }
        sql.push_bind(id.clone());
        sql.push(")");
    }
    sql.push(" ORDER BY ");
    if let Some(key) = key {
        sql.push(format!("{key} {direction}, "));
    }
    sql.push(format!("id {direction} LIMIT "));
    sql.push_bind(limit);
    Ok(sql.build_query_as().fetch_all(pool).await?)
}

/// Counts the jobs that match the filter, up to `at_most`.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn count(pool: &PgPool, filter: &Filter, at_most: i64) -> Result<i64, Error> {
    let mut sql = filter.select(pool, "count(*) FROM (SELECT").await?;
    sql.push(" LIMIT ");
    sql.push_bind(at_most);
    sql.push(") AS counted");
    Ok(sql.build_query_scalar().fetch_one(pool).await?)
}

/// Returns the ids of the jobs that match the filter, up to `at_most`.
pub(in crate::queue) async fn ids(
    pool: &PgPool,
    filter: &Filter,
    at_most: i64,
) -> Result<Vec<String>, Error> {
    let mut sql = filter.select(pool, "id").await?;
    if let (Some(key), _) = filter.order() {
        sql.push(format!(" ORDER BY {key}"));
    }
    sql.push(" LIMIT ");
    sql.push_bind(at_most);
    Ok(sql.build_query_scalar().fetch_all(pool).await?)
}
