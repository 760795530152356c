//! Request to reserve seats.

use crate::id::ShowId;
use crate::idempotency::Claim;

/// Request to reserve seats.
#[derive(Debug, Clone)]
pub struct Request {
    /// Id of the show.
    pub show_id: ShowId,
    /// Name of the user who books: 1 to 200 characters.
    pub user_name: String,
    /// Number of seats: 1 to [`MAX_SEATS_PER_BOOKING`](crate::booking::MAX_SEATS_PER_BOOKING).
    pub number_of_seats: i32,
    /// Idempotency key that makes the request safe to retry, if it has one.
    pub claim: Option<Claim>,
}
