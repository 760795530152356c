//! Queries of the queue, whose cost does not depend on how many jobs there are.

mod details;
mod list;
mod queues;
mod workers;

pub(super) use self::list::ids;
pub use self::{
    details::{Details, Event, Payload, find},
    list::{Cursor, Filter, QueuedJob, count, jobs},
    queues::{MAX_COUNTED, Pause, Queue, queues},
    workers::{Worker, workers},
};
