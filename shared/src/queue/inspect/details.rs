//! Details of a job.

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use sqlx::{AssertSqlSafe, FromRow, PgPool};
use ulid::Ulid;

use super::list::{QueuedJob, bookings_named, columns};
use crate::{
    booking::{Booking, query},
    postgres::Error,
    queue::JobState,
};

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
