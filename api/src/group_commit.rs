//! Group commit: concurrent requests share one transaction.
//!
//! A row lock held across a COMMIT limits a hot show to one booking per flush of the write-ahead
//! log. So requests are batched: while one transaction is in flight, the requests that arrive wait,
//! and the next transaction takes them all. While that transaction waits for its locks, more
//! requests join it. A lone request is a batch of one and does not wait; there is no timer.
//!
//! Measured: batches reinforce each other, so few lanes with big batches are faster than many
//! lanes.
//!
//! If a batch cannot acquire one of its locks soon, because another session holds it, the batch
//! goes on without the requests that need this lock. Those wait outside the lane, on a [detour].
//!
//! On [Citus](shared::postgres::citus), all requests of a transaction are for the same show.

mod arrivals;
mod detour;
mod kind;
pub(crate) mod kinds;
mod lane;
mod lanes;
mod member;
mod metrics;
mod run;
mod submit;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    kind::Sharing,
    lanes::{Lanes, Limits},
    member::SubmitError,
    submit::GroupCommit,
};
