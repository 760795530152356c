//! The job queue as operators see it: its contents, and how to control it.
//!
//! | topic | module |
//! | --- | --- |
//! | queues, jobs and workers as they are now | [`inspect`] |
//! | retry, run now, cancel, pause and resume | [`control`] |
//! | what the janitor rescues and prunes | [`housekeeping`] |
//! | apalis's schema, and our changes to it | [`engine`] |

pub mod control;
pub mod engine;
pub mod housekeeping;
pub mod inspect;

use serde::{Deserialize, Serialize};

/// State of a job. The rows have apalis's own names for it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum JobState {
    /// The job is to run later.
    Scheduled,
    /// The job is to run now, and waits for a worker.
    Due,
    /// A worker has claimed the job.
    Running,
    /// The job failed, and is to be retried later.
    Failed,
    /// The job has ended with success.
    Done,
    /// The job has ended without success. It runs again only if an operator retries it.
    Dead,
}

impl JobState {
    /// All states, in the order of a job's life.
    pub const ALL: [Self; 6] = [
        Self::Scheduled,
        Self::Due,
        Self::Running,
        Self::Failed,
        Self::Done,
        Self::Dead,
    ];

    /// Returns the name, as in JSON and in queries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Due => "due",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }

    /// Returns the SQL condition for such jobs, in the words of the index that finds them.
    const fn condition(self) -> &'static str {
        match self {
            Self::Scheduled => "status = 'Pending' AND run_at > now()",
            Self::Due => {
                "(status = 'Pending' OR (status = 'Failed' AND attempts < max_attempts)) AND run_at <= now()"
            }
            Self::Running => "(status = 'Queued' OR status = 'Running')",
            Self::Failed => "status = 'Failed' AND attempts < max_attempts AND run_at > now()",
            Self::Done => "status = 'Done'",
            Self::Dead => "(status = 'Killed' OR (status = 'Failed' AND attempts >= max_attempts))",
        }
    }
}
