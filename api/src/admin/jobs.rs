//! Handlers of `/jobs`, `/queues/{queue}/jobs` and `/bookings/{id}`.

mod cursor;

use std::{mem, sync::Arc};

use axum::{Json, extract::State};
use garde::Validate;
use serde::{Deserialize, Serialize};
use shared::{
    booking::{Refusal, query},
    id::{BookingId, ShowId},
    jobs::{ExpireBookings, Job},
    queue::{
        JobState,
        control::{self, Action, MAX_CHANGED, Note},
        inspect::{self, Details, Filter, QueuedJob},
    },
};

use self::cursor::Cursor;
use super::{problem::AdminProblem, queues::known, state::AdminState};
use crate::{
    input::{
        caller::{Administer, Caller},
        url::{Id, Path, Query},
    },
    output::{
        booking::BookingView,
        field_error::FieldError,
        large_body::LargeBodyPermit,
        pagination::{self, DEFAULT_LIMIT, Page},
        problem::Problem,
    },
};

/// Filter and pagination of a list of jobs.
#[derive(Debug, Clone, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ListJobs {
    /// Only jobs in this state.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<JobState>,
    /// Only jobs of this booking.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    booking_id: Option<BookingId>,
    /// Only jobs with a booking of this show.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    show_id: Option<ShowId>,
    /// Maximum number of jobs in a page; default 100.
    #[garde(inner(range(min = 1, max = 1000)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<i64>,
    /// Cursor from the header `Link` of the previous page.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Cursor>,
}

/// Filter of jobs for operations without pagination.
#[derive(Debug, Clone, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AllJobs {
    /// Only jobs in this state.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<JobState>,
    /// Only jobs of this booking.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    booking_id: Option<BookingId>,
    /// Only jobs with a booking of this show.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    show_id: Option<ShowId>,
}

impl AllJobs {
    fn filter(&self, queue: String) -> Filter {
        Filter {
            queue,
            state: self.state,
            booking_id: self.booking_id,
            show_id: self.show_id,
        }
    }
}

impl ListJobs {
    fn filter(&self, queue: String) -> Filter {
        Filter {
            queue,
            state: self.state,
            booking_id: self.booking_id,
            show_id: self.show_id,
        }
    }
}

pub(super) async fn list(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
    Path(queue): Path<String>,
    permit: LargeBodyPermit,
    Query(mut query): Query<ListJobs>,
) -> Result<Page<QueuedJob>, AdminProblem> {
    let queue = known(&state, queue).await?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let filter = query.filter(queue);
    let after = query.after.as_ref().map(|cursor| &cursor.0);
    if after.is_some_and(|cursor| !filter.has(cursor)) {
        return Err(pagination::wrong_cursor().into());
    }
    let jobs = inspect::jobs(&state.database.pool, &filter, after, limit + 1).await?;
    Ok(Page::new(jobs, limit, "jobs", permit, |last| {
        query.after = Some(Cursor(filter.cursor(last)));
        query
    }))
}

/// Number of jobs that an action on a filter would change.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Count {
    /// Number of matching jobs, at most as many as one action changes.
    count: i64,
    /// Whether more jobs match.
    has_more: bool,
}

pub(super) async fn count(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
    Path(queue): Path<String>,
    Query(query): Query<AllJobs>,
) -> Result<Json<Count>, AdminProblem> {
    let filter = query.filter(known(&state, queue).await?);
    let counted = inspect::count(&state.database.pool, &filter, MAX_CHANGED + 1).await?;
    Ok(Json(Count {
        count: counted.min(MAX_CHANGED),
        has_more: counted > MAX_CHANGED,
    }))
}

/// A job and its bookings.
#[derive(Serialize)]
pub(super) struct JobWithBookings {
    #[serde(flatten)]
    details: Details,
    bookings: Vec<BookingView>,
}

impl From<Details> for JobWithBookings {
    fn from(mut details: Details) -> Self {
        let bookings = mem::take(&mut details.bookings);
        Self {
            details,
            bookings: bookings.into_iter().map(Into::into).collect(),
        }
    }
}

pub(super) async fn find(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
    Path(id): Path<String>,
) -> Result<Json<JobWithBookings>, AdminProblem> {
    let found = inspect::find(&state.database.pool, &storable(id)?).await?;
    let found = found.ok_or(AdminProblem::JobNotFound)?;
    Ok(Json(found.into()))
}

/// Returns the id, unless it contains NUL, which the database cannot store.
fn storable(id: String) -> Result<String, AdminProblem> {
    if id.contains('\0') {
        return Err(AdminProblem::JobNotFound);
    }
    Ok(id)
}

/// A booking and its jobs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BookingWithJobs {
    #[serde(flatten)]
    booking: BookingView,
    jobs: Vec<QueuedJob>,
}

pub(super) async fn of_booking(
    _: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
    Id(booking_id): Id<BookingId>,
) -> Result<Json<BookingWithJobs>, AdminProblem> {
    let booking = query::find(&state.database.pool, booking_id, None)
        .await?
        .ok_or(Refusal::BookingNotFound { booking_id })?;
    let filter = Filter {
        queue: ExpireBookings::QUEUE.to_owned(),
        state: None,
        booking_id: Some(booking_id),
        show_id: None,
    };
    let jobs = inspect::jobs(&state.database.pool, &filter, None, DEFAULT_LIMIT).await?;
    Ok(Json(BookingWithJobs {
        booking: booking.into(),
        jobs,
    }))
}

/// Result of an action on all jobs that match a filter.
#[derive(Serialize)]
pub(super) struct Changed {
    /// Number of changed jobs.
    changed: u64,
}

pub(super) async fn act(
    caller: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
    Path((id, action)): Path<(String, Action)>,
) -> Result<Json<JobWithBookings>, AdminProblem> {
    let id = storable(id)?;
    let note = Note {
        actor: &caller.name(),
        target: &format!("job {id}"),
    };
    let ids = [id];
    let Some(job) = inspect::find(&state.database.pool, &ids[0]).await? else {
        return Err(AdminProblem::JobNotFound);
    };
    let changed = control::act(&state.database, action, &ids, note).await?;
    state.poller.poll_now();
    match inspect::find(&state.database.pool, &ids[0]).await? {
        Some(job) if changed > 0 => Ok(Json(job.into())),
        now => Err(AdminProblem::JobState {
            action,
            state: now.map_or(job.job.state, |now| now.job.state),
        }),
    }
}

pub(super) async fn act_on_all(
    caller: Caller<Administer>,
    State(state): State<Arc<AdminState>>,
    Path((queue, action)): Path<(String, Action)>,
    Query(query): Query<AllJobs>,
) -> Result<Json<Changed>, AdminProblem> {
    let wanted = serde_urlencoded::to_string(&query).unwrap_or_default();
    let filter = query.filter(known(&state, queue).await?);
    let note = Note {
        actor: &caller.name(),
        target: &format!("jobs of {} with {wanted}", filter.queue),
    };
    if filter
        .state
        .is_none_or(|state| !action.allowed_in().contains(&state))
    {
        let allowed = action.allowed_in().iter().map(|state| state.name());
        return Err(Problem::MalformedQuery(FieldError {
            pointer: "state".to_owned(),
            detail: format!(
                "must be one of the following to {} jobs: {}",
                action.name(),
                allowed.collect::<Vec<_>>().join(", ")
            ),
        })
        .into());
    }
    let changed = control::act_on_all(&state.database, action, &filter, note).await?;
    state.poller.poll_now();
    Ok(Json(Changed { changed }))
}
