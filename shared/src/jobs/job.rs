//! Kind of job.

use serde::{Serialize, de::DeserializeOwned};

/// Kind of job. The type itself is the payload.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Name of the queue, also in `apalis.jobs.job_type`.
    const QUEUE: &'static str;
    /// Number of attempts after which a failing job is dead.
    const MAX_ATTEMPTS: i32;
}
