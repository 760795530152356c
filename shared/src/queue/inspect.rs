//! Queries of the queue, whose cost does not depend on how many jobs there are.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use sqlx::{AssertSqlSafe, FromRow, PgPool, Postgres, QueryBuilder};
use ulid::Ulid;

use super::JobState;
use crate::{
    booking::{Booking, query},
    id::{BookingId, ShowId},
    jobs::{self, ExpireBookings},
    postgres::Error,
    timestamp::Timestamp,
};

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
    /// How long the oldest due job has waited, in seconds; 0 when none is due.
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

/// Returns all queues: those of this program, those in which a job waits, and paused ones.
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
         ORDER BY name"
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
fn columns() -> String {
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
        (None, show_id) => sqlx::query_as(
            "(SELECT id, created_at FROM bookings WHERE show_id = $1 ORDER BY id DESC LIMIT 1000)
                 UNION
                 (SELECT id, created_at FROM bookings WHERE show_id = $1 AND resolved_at IS NULL
                  ORDER BY expires_at LIMIT 1000)",
        )
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

fn bookings_named(payload: &[u8]) -> Vec<BookingId> {
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
pub(super) async fn ids(
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

/// Details of a job.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Job as in lists.
    #[serde(flatten)]
    pub job: QueuedJob,
    /// Payload of the job.
    pub payload: Payload,
    /// Known events of its life, earliest first.
    pub timeline: Vec<Event>,
    /// Bookings that it names and that exist, as they are now. How clients see them is up to the
    /// caller.
    #[serde(skip)]
    pub bookings: Vec<Booking>,
    /// W3C trace context of the request that made the job.
    pub traceparent: Option<String>,
}

/// Payload of a job.
#[derive(Debug, Clone)]
pub struct Payload(Vec<u8>);

impl Serialize for Payload {
    /// Serializes a JSON payload as it is, any other one as text.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serde_json::from_slice::<serde_json::Value>(&self.0) {
            Ok(json) => json.serialize(serializer),
            Err(_) => serializer.serialize_str(&String::from_utf8_lossy(&self.0)),
        }
    }
}

/// Event in the life of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Time of the event.
    pub at: DateTime<Utc>,
    /// Description of the event.
    pub what: String,
}

/// Finds a job by its id.
///
/// # Errors
///
/// Fails if the database call fails.
pub async fn find(pool: &PgPool, id: &str) -> Result<Option<Details>, Error> {
    #[derive(FromRow)]
    struct Row {
        #[sqlx(flatten)]
        job: QueuedJob,
        payload: Vec<u8>,
        traceparent: Option<String>,
    }
    let columns = columns();
    let sql = format!(
        "SELECT {columns}, job AS payload, metadata -> 'traceparent' AS traceparent FROM apalis.jobs WHERE id = $1"
    );
    let row: Option<Row> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(id)
        .fetch_optional(pool)
        .await?;
    let Some(Row {
        job,
        payload,
        traceparent,
    }) = row
    else {
        return Ok(None);
    };
    Ok(Some(Details {
        bookings: query::find_many(pool, &bookings_named(&payload)).await?,
        timeline: timeline(&job),
        payload: Payload(payload),
        traceparent,
        job,
    }))
}

/// Returns the events of a job's life that its row shows: its last run, and no earlier one. Pure.
fn timeline(job: &QueuedJob) -> Vec<Event> {
    let event = |at: Option<DateTime<Utc>>, what: String| at.map(|at| Event { at, what });
    let made_at = job
        .id
        .parse::<Ulid>()
        .ok()
        .and_then(|id| DateTime::from_timestamp_millis(id.timestamp_ms().cast_signed()));
    let worker = job.taken_by.as_deref().unwrap_or("a worker");
    let due = match job.state {
        JobState::Scheduled => "is due",
        JobState::Failed => "is due again",
        JobState::Due | JobState::Running | JobState::Done | JobState::Dead => "was due",
    };
    let ended = match job.state {
        JobState::Done => "done",
        JobState::Dead => "dead",
        _ => "failed",
    };
    let mut events: Vec<Event> = [
        event(made_at, "created".to_owned()),
        event(Some(job.run_at.into()), due.to_owned()),
        event(job.taken_at.map(Into::into), format!("claimed by {worker}")),
        event(job.ended_at.map(Into::into), ended.to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect();
    events.sort_by_key(|event| event.at);
    events
}

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
