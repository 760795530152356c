//! Job that cancels the bookings of a cancelled show.

use serde::{Deserialize, Serialize};

use super::job::Job;
use crate::id::ShowId;

/// Payload of the job that cancels all bookings of a cancelled show.
///
/// It is enqueued in the transaction that cancels the show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelShow {
    /// Show whose bookings are to be cancelled.
    pub show_id: ShowId,
}

impl Job for CancelShow {
    const QUEUE: &'static str = "cancel-show";
    /// As for an expiry job. A job that is dead is enqueued again when a client repeats its request.
    const MAX_ATTEMPTS: i32 = 12;
}
