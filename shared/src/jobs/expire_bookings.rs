//! Job that expires bookings.

use serde::{Deserialize, Serialize};

use super::job::Job;
use crate::id::{BookingId, ShowId};

/// Payload of the job that fails the named holds once they have expired.
///
/// There is one job for each committed batch of bookings. [`reserve`](crate::booking::reserve)
/// enqueues it in the statement that draws their ids, with the payload that the SQL function
/// `expire_bookings_payload` makes. The SQL function `bookings_of_payload` reads one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpireBookings {
    /// Show of the bookings, if it is the same for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show_id: Option<ShowId>,
    /// Bookings that were reserved together.
    pub booking_ids: Vec<BookingId>,
}

impl Job for ExpireBookings {
    const QUEUE: &'static str = "expire-bookings";
    /// With the worker's backoff these take about half an hour. The janitor's sweep frees the seats
    /// long before.
    const MAX_ATTEMPTS: i32 = 12;
}
