//! Outcome of the last write to a database.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::error::Error;

/// Reason why the last transaction could not write, if only an operator can help.
///
/// The disk may be full, for example.
///
/// No read would reveal it.
#[derive(Debug, Default)]
pub struct LastWrite {
    refused: Mutex<Option<(Instant, String)>>,
}

/// Time for which a refused write counts.
///
/// A process that is not ready may get no requests. So after this time it counts as ready, and the
/// next request finds out.
const REFUSAL_COUNTS: Duration = Duration::from_secs(5);

impl LastWrite {
    pub(super) fn refused(&self, error: &Error) {
        // Anything else that a database lacks is detected without a write.
        if let (Error::NeedsOperator(_), Some(reason)) = (error, error.operators_reason()) {
            *self.lock() = Some((Instant::now(), reason));
        }
    }

    pub(super) fn succeeded(&self) {
        *self.lock() = None;
    }

    /// Returns why the last write was refused, if that was a moment ago.
    pub(super) fn refusal(&self) -> Option<String> {
        let refused = self.lock();
        let (at, reason) = refused.as_ref()?;
        (at.elapsed() < REFUSAL_COUNTS).then(|| reason.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
