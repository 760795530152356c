//! Supervision of every job: decoding, timeout, panic capture, and retries with backoff.
//!
//! apalis counts attempts and records results. This module decides when a job runs again, because
//! apalis would run it again at once. Timeouts and panics are caught here, inside the handler:
//! caught in layers around it, they would leave the job `Running` for ever.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use apalis::prelude::{AbortError, BoxDynError, DeferredError, FromRequest, Task, TaskId};
use chrono::{DateTime, Utc};
use futures_util::{FutureExt, future::BoxFuture};
use shared::{
    jobs::{self, Job, RunAt},
    postgres::Database,
    telemetry::traces::{self, TRACEPARENT},
};
use sqlx::PgPool;
use tracing::Instrument;

use crate::metrics::{JOB_SECONDS, JOBS};

/// Reason why a job is not done.
#[derive(Debug)]
pub enum JobError {
    /// The job is too early: run it again at this time.
    Snooze(DateTime<Utc>),
    /// The job may succeed when it is run again, after a while.
    Retry(anyhow::Error),
    /// The job can never succeed. It is dead, and kept for inspection.
    Fail(anyhow::Error),
}

/// Handler of the jobs of a queue.
#[derive(Clone)]
pub struct Handler {
    queue: &'static str,
    run: Run,
}

/// Function that runs one payload, which is JSON as bytes in hexadecimal.
type Run = Arc<dyn Fn(Database, String) -> BoxFuture<'static, Result<(), JobError>> + Send + Sync>;

/// Converts the function that runs one kind of job into a [`Handler`].
///
/// A job whose payload does not decode is dead at once, with the reason.
pub fn handler<J: Job, Running>(
    run: impl Fn(Database, J) -> Running + Send + Sync + 'static,
) -> Handler
where
    Running: Future<Output = Result<(), JobError>> + Send + 'static,
{
    let run = move |database, payload: String| match decode(&payload)
        .context("the payload does not decode")
    {
        Ok(job) => run(database, job).boxed(),
        Err(error) => std::future::ready(Err(JobError::Fail(error))).boxed(),
    };
    Handler {
        queue: J::QUEUE,
        run: Arc::new(run),
    }
}

fn decode<J: Job>(payload: &str) -> anyhow::Result<J> {
    Ok(serde_json::from_slice(&hex::decode(payload)?)?)
}

/// One run of a job.
#[derive(Debug, Clone)]
pub struct Execution {
    /// Id of the job.
    pub job_id: String,
    /// Number of this attempt, from 1.
    pub attempt: usize,
    /// Maximum number of attempts.
    pub max_attempts: usize,
    /// Trace that the job belongs to.
    pub traceparent: Option<String>,
}

impl<Args: Sync> FromRequest<Task<Args>> for Execution {
    type Error = <TaskId as FromRequest<Task<Args>>>::Error;

    async fn from_request(task: &Task<Args>) -> Result<Self, Self::Error> {
        Ok(Self {
            job_id: TaskId::from_request(task).await?.to_string(),
            attempt: task.raw_attempt().current(),
            max_attempts: task.ctx().max_attempts().unwrap_or(usize::MAX),
            traceparent: task
                .ctx()
                .metadata()
                .iter()
                .find_map(|(key, value)| (key == TRACEPARENT).then(|| value.clone())),
        })
    }
}

/// Timeout of a job.
///
/// It must stay well below the time after which a worker counts as dead, because its jobs are then
/// given to another worker.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Runs a job, and returns to apalis what the job's row is to become.
///
/// It is `Ok` for done, [`DeferredError`] for pending, [`AbortError`] for killed, and any other
/// error for failed.
///
/// # Errors
///
/// Fails if the job is not done, with the errors above.
pub async fn supervise(
    handler: &Handler,
    database: Database,
    execution: &Execution,
    payload: String,
) -> Result<(), BoxDynError> {
    let Execution {
        job_id, attempt, ..
    } = execution;
    let span = tracing::info_span!("job", job_id, attempt, queue = handler.queue);
    traces::continue_with(&span, execution.traceparent.as_deref());
    run(handler, database, execution, payload)
        .instrument(span)
        .await
}

async fn run(
    handler: &Handler,
    database: Database,
    Execution {
        job_id,
        attempt,
        max_attempts,
        ..
    }: &Execution,
    payload: String,
) -> Result<(), BoxDynError> {
    let result = if attempt > max_attempts {
        // Only the loss of the whole worker uses up an attempt without an outcome.
        let error = anyhow!("its worker was lost in each of {max_attempts} attempts");
        Err(JobError::Fail(error))
    } else {
        let _timer = JOB_SECONDS
            .with_label_values(&[handler.queue])
            .start_timer();
        run_limited(handler, database.clone(), payload).await
    };
    let outcome = match &result {
        Ok(()) => "done",
        Err(JobError::Snooze(_)) => "snoozed",
        Err(JobError::Retry(_)) if attempt < max_attempts => "retried",
        Err(JobError::Retry(_) | JobError::Fail(_)) => "dead",
    };
    JOBS.with_label_values(&[handler.queue, outcome]).inc();
    match result {
        Ok(()) => Ok(()),
        Err(JobError::Snooze(until)) => {
            reschedule(&database.pool, job_id, RunAt::Instant(until)).await?;
            Err(DeferredError::new("not yet due").into())
        }
        Err(JobError::Retry(error)) => {
            let delay = backoff(*attempt);
            tracing::warn!(
                ?delay,
                error = format!("{error:#}"),
                "job failed, will be retried"
            );
            reschedule(&database.pool, job_id, RunAt::After(delay)).await?;
            // The row stores only the text of this error, and not the texts of its causes.
            Err(anyhow!("{error:#}").into())
        }
        Err(JobError::Fail(error)) => {
            tracing::error!(error = format!("{error:#}"), "job is dead");
            Err(AbortError::new(error).into())
        }
    }
}

/// Reschedules a job.
///
/// The timeout keeps a database that does not answer from blocking the job's slot.
async fn reschedule(pool: &PgPool, job_id: &str, run_at: RunAt) -> Result<(), BoxDynError> {
    tokio::time::timeout(TIME_LIMIT, jobs::reschedule(pool, job_id, run_at)).await??;
    Ok(())
}

async fn run_limited(
    handler: &Handler,
    database: Database,
    payload: String,
) -> Result<(), JobError> {
    let running = AssertUnwindSafe(async { (handler.run)(database, payload).await }).catch_unwind();
    match tokio::time::timeout(TIME_LIMIT, running).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(JobError::Retry(anyhow!("panic: {}", panic_text(&*panic)))),
        Err(_) => Err(JobError::Retry(anyhow!("not done within {TIME_LIMIT:?}"))),
    }
}

/// Returns the delay after an attempt, counted from 1.
///
/// It doubles from one second up to ten minutes. Up to a quarter is subtracted at random, so that
/// jobs that failed together are not retried together.
fn backoff(attempt: usize) -> Duration {
    let exponent = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    let seconds = 2_u32.saturating_pow(exponent).min(600);
    Duration::from_secs(seconds.into()).mul_f64(1.0 - fastrand::f64() / 4.0)
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use testing::direct;

    use super::*;

    /// Job without a payload.
    #[derive(Serialize, Deserialize)]
    struct Empty;

    impl Job for Empty {
        const QUEUE: &'static str = "test";
        const MAX_ATTEMPTS: i32 = 1;
    }

    /// Runs a job with this function. Its pool is never used.
    async fn run_one<Running>(run: fn(Database, Empty) -> Running) -> Result<(), JobError>
    where
        Running: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        let pool = PgPool::connect_lazy("postgres:///never-connected").unwrap();
        run_limited(&handler(run), direct(&pool), hex::encode("null")).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_never_ends_is_ended_and_retried() {
        let Err(JobError::Retry(error)) = run_one(|_, _| std::future::pending()).await else {
            panic!("the job is not retried");
        };
        assert_eq!(error.to_string(), "not done within 15s");
    }

    #[tokio::test]
    async fn a_job_that_panics_is_retried_and_tells_why() {
        let Err(JobError::Retry(error)) = run_one(|_, _| async { panic!("out of cheese") }).await
        else {
            panic!("the job is not retried");
        };
        assert_eq!(error.to_string(), "panic: out of cheese");
    }

    #[test]
    fn backoff_doubles_up_to_ten_minutes() {
        for (attempt, longest) in [(1, 1), (2, 2), (3, 4), (10, 512), (11, 600), (1000, 600)] {
            let longest = Duration::from_secs(longest);
            let delay = backoff(attempt);
            assert!(delay <= longest, "attempt {attempt}: {delay:?}");
            assert!(
                delay >= longest.mul_f64(0.75),
                "attempt {attempt}: {delay:?}"
            );
        }
    }
}
