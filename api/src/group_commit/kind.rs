//! A kind of request whose transactions are shared.

use shared::{
    batch::Batch,
    booking::locks::HeldLocks,
    postgres::{self, Session},
};

/// Kind of request, and how a batch of them runs.
pub(crate) trait Kind: Send + Sync + 'static {
    type Request: Clone + Send + Sync + 'static;
    type Answer: Send + 'static;

    /// Name in metrics and traces.
    const NAME: &'static str;

    /// Runs a batch in one transaction and returns an answer for each member, in order.
    ///
    /// An error means that no request was done, except [`postgres::Error::OutcomeUnknown`].
    fn run(
        session: &mut Session,
        batch: &mut Batch<'_, Self::Request>,
    ) -> impl Future<Output = Result<Vec<Self::Answer>, postgres::Error>> + Send;

    /// Finds the lock that each request cannot acquire now.
    fn find_held_locks(
        session: &mut Session,
        requests: &[Self::Request],
    ) -> impl Future<Output = Result<HeldLocks, postgres::Error>> + Send;
}

/// Rule for the requests that can share a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// All requests of a lane.
    Any,
    /// Requests with the same key.
    SameKey,
}
