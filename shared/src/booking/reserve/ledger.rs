//! Decision of who gets seats, without input or output.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::request::Request;
use crate::{
    booking::{refusal::Refusal, rules::Booking, user_name},
    id::ShowId,
    idempotency::{Claim, Key},
    show::{self, Hold},
};

/// Returns how many seats each show lacks for these requests.
pub(super) fn lacking_seats(shows: &show::Locked, requests: &[Request]) -> BTreeMap<ShowId, i64> {
    let mut lacking: BTreeMap<ShowId, i64> = shows
        .inventories
        .iter()
        .map(|(show_id, show)| (*show_id, -i64::from(show.available_seats)))
        .collect();
    for request in requests {
        if let Some(lacking) = lacking.get_mut(&request.show_id) {
            *lacking += i64::from(request.number_of_seats);
        }
    }
    lacking.retain(|_, lacking| *lacking > 0);
    lacking
}

/// Seats to give, and seats given, while the shows are locked.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) shows: show::Locked,
    /// Bookings that earlier requests with the same keys made.
    pub(super) earlier: BTreeMap<Key, Earlier>,
    /// Number of seats that each user has, by the form in which names are compared, in shows that limit
    /// it.
    pub(super) taken: BTreeMap<(ShowId, String), i64>,
}

/// Use of an idempotency key by an earlier request.
#[derive(Debug, Clone)]
pub(super) enum Earlier {
    /// It made a booking of one of the locked shows.
    Booking {
        fingerprint: Vec<u8>,
        made: Decision,
    },
    /// It made a show, or a booking of another show. No request for the locked shows repeats it.
    Other,
}

/// Decision on a request that is not refused.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    /// A new booking.
    Hold(Hold),
    /// Booking of an earlier request in this batch, by its position.
    SameAs(usize),
    /// Booking of a request in an earlier batch.
    Made(Box<Booking>),
}

impl Ledger {
    /// Decides which requests get seats, first come first served, and until when. Pure.
    pub(super) fn decide(
        &mut self,
        requests: &[Request],
        now: DateTime<Utc>,
    ) -> Vec<Result<Decision, Refusal>> {
        requests
            .iter()
            .enumerate()
            .map(|(position, request)| self.decide_one(position, request, now))
            .collect()
    }

    fn decide_one(
        &mut self,
        position: usize,
        request: &Request,
        now: DateTime<Utc>,
    ) -> Result<Decision, Refusal> {
        if let Some(claim) = &request.claim
            && let Some(earlier) = self.earlier.get(&claim.key)
        {
            return match earlier {
                Earlier::Booking { fingerprint, made } if *fingerprint == claim.fingerprint => {
                    Ok(made.clone())
                }
                Earlier::Booking { .. } | Earlier::Other => Err(Refusal::KeyReused),
            };
        }
        let show_id = request.show_id;
        let show = self
            .shows
            .inventories
            .get_mut(&show_id)
            .ok_or(Refusal::ShowNotFound { show_id })?;
        let hold = if show.max_seats_per_user.is_some() {
            let user = (show_id, user_name::comparable(&request.user_name));
            let taken = self.taken.entry(user).or_default();
            let hold = show.take(request.number_of_seats, *taken, now)?;
            *taken += i64::from(request.number_of_seats);
            hold
        } else {
            show.take(request.number_of_seats, 0, now)?
        };
        if let Some(Claim { key, fingerprint }) = request.claim.clone() {
            let made = Decision::SameAs(position);
            self.earlier
                .insert(key, Earlier::Booking { fingerprint, made });
        }
        Ok(Decision::Hold(hold))
    }
}

#[cfg(test)]
mod tests;
