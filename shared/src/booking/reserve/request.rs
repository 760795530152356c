//! Request to reserve seats.

use crate::{id::ShowId, idempotency::Claim, metadata::Metadata};

/// Request to reserve seats.
#[derive(Debug, Clone)]
pub struct Request {
    /// Id of the show.
    pub show_id: ShowId,
    /// Name of the user who books: 1 to 200 characters.
    pub user_name: String,
    /// Number of seats: 1 to [`MAX_SEATS_PER_BOOKING`](crate::booking::MAX_SEATS_PER_BOOKING).
    pub number_of_seats: i32,
    /// Text by which the client's system knows the booking: 1 to 64 characters.
    pub reference: Option<String>,
    /// Metadata of the client's system.
    pub metadata: Option<Metadata>,
    /// Idempotency key that makes the request safe to retry, if it has one.
    pub claim: Option<Claim>,
}

impl Request {
    /// Returns a request without a reference, metadata or a key.
    #[must_use]
    pub fn new(show_id: ShowId, user_name: &str, number_of_seats: i32) -> Self {
        Self {
            show_id,
            user_name: user_name.to_owned(),
            number_of_seats,
            reference: None,
            metadata: None,
            claim: None,
        }
    }
}
