//! The queue, for those who look after it: what is in it, and how it is steered.
//!
//! | for | see |
//! | --- | --- |
//! | queues, jobs and workers as they are | [`inspect`] |
//! | retry, run now, cancel, pause and resume | [`steer`] |
//! | what the janitor does | [`housekeeping`] |
//! | apalis's schema, and our changes to it | [`engine`] |

pub mod engine;
pub mod housekeeping;
pub mod inspect;
pub mod steer;

use serde::{Deserialize, Serialize};

/// What a job is about to do. apalis's own words for it are in the rows.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum JobState {
    /// To be run later.
    Scheduled,
    /// To be run now: it waits for a worker.
    Due,
    /// In a worker's hands.
    Running,
    /// It failed, and is to be run again later.
    Failed,
    /// It is over, with success.
    Done,
    /// It is over, and will not be run again unless somebody says so.
    Dead,
}

impl JobState {
    /// Each of them, in the order of a job's life.
    pub const ALL: [Self; 6] = [
        Self::Scheduled,
        Self::Due,
        Self::Running,
        Self::Failed,
        Self::Done,
        Self::Dead,
    ];

    /// Its name, as in JSON and in queries.
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

    /// What the rows of such jobs have in common, in the words of the index that finds them.
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
