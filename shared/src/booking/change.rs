//! Common parts of confirm, cancel and extend.

use std::{collections::BTreeMap, mem};

use super::{
    query,
    refusal::Refusal,
    rules::{Booking, Effect},
    save::Changed,
};
use crate::{
    id::{BookingId, ShowId},
    idempotency::{Claim, Key, Record},
};

/// Request to change a booking.
#[derive(Debug, Clone)]
pub struct Change {
    /// Id of the booking.
    pub booking_id: BookingId,
    /// Id of its show, if known. On [Citus](crate::postgres::citus) it must be.
    pub show_id: Option<ShowId>,
    /// [Versions](Booking::version) of the booking for which the change is allowed; `None`: any.
    ///
    /// A booking that already is as requested needs no change, whatever its version.
    pub only_if: Option<Vec<String>>,
    /// Idempotency key that makes a change safe to retry which is not so by itself, if the request
    /// has one.
    pub claim: Option<Claim>,
}

/// Request to change a booking, or a part of its seats: to confirm or to cancel them.
#[derive(Debug, Clone)]
pub struct PartialChange {
    /// Booking to change.
    pub change: Change,
    /// Number of its seats to confirm or to cancel: at least 1; `None`: all.
    pub number_of_seats: Option<i32>,
}

impl From<Change> for PartialChange {
    /// Returns a request for all seats of the booking.
    fn from(change: Change) -> Self {
        Self {
            change,
            number_of_seats: None,
        }
    }
}

impl AsRef<Change> for PartialChange {
    fn as_ref(&self) -> &Change {
        &self.change
    }
}

impl AsRef<Self> for Change {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Change {
    /// Returns the key by which requests share transactions: the show, or the booking if no show is
    /// given.
    #[must_use]
    pub fn key(&self) -> i64 {
        self.show_id.map_or(self.booking_id.0, |show_id| show_id.0)
    }

    /// Returns whether the booking found by its id is in the show that the request names, if any.
    fn is_for(&self, booking: &Booking) -> bool {
        self.show_id
            .is_none_or(|show_id| show_id == booking.show_id)
    }

    fn not_found(&self) -> Refusal {
        let booking_id = self.booking_id;
        Refusal::BookingNotFound { booking_id }
    }

    fn allows(&self, current: &Booking) -> bool {
        self.only_if
            .as_ref()
            .is_none_or(|versions| versions.contains(&current.version()))
    }
}

/// Returns the ids of the bookings that the requests are for.
pub(super) fn ids<Request: AsRef<Change>>(requests: &[Request]) -> Vec<BookingId> {
    requests.iter().map(|r| r.as_ref().booking_id).collect()
}

/// Returns the show of all these bookings, if it is known and the same.
pub(super) fn only_show<Request: AsRef<Change>>(requests: &[Request]) -> Option<ShowId> {
    let mut shows = requests.iter().map(|r| r.as_ref().show_id);
    let first = shows.next()??;
    shows.all(|show_id| show_id == Some(first)).then_some(first)
}

/// Decisions on a batch of requests.
pub(super) struct Decisions {
    /// Answer to each request, in order.
    pub answers: Vec<Result<Booking, Refusal>>,
    /// Bookings to write.
    pub changed: Vec<Changed>,
    /// Claims of the requests that succeeded for the first time, with their bookings.
    claimed: Vec<(Claim, Booking)>,
}

impl Decisions {
    /// Refuses all requests, since none of their bookings exists.
    pub(super) fn not_found<Request: AsRef<Change>>(requests: &[Request]) -> Self {
        let refused = |request: &Request| Err(request.as_ref().not_found());
        Self {
            answers: requests.iter().map(refused).collect(),
            changed: Vec::new(),
            claimed: Vec::new(),
        }
    }

    /// Returns the keys to record, and the bookings that they are for.
    pub(super) fn claimed(&self) -> impl Iterator<Item = (&Claim, &Booking)> {
        self.claimed.iter().map(|(claim, booking)| (claim, booking))
    }
}

/// Returns whether this request was done before; or a refusal, if another one was.
fn was_done(
    used: &BTreeMap<Key, Record>,
    claim: &Claim,
    booking: &Booking,
) -> Result<bool, Refusal> {
    match used.get(&claim.key) {
        None => Ok(false),
        Some(record)
            if record.booking_id == Some(booking.id) && record.fingerprint == claim.fingerprint =>
        {
            Ok(true)
        }
        Some(_) => Err(Refusal::KeyReused),
    }
}

/// Decides the requests in order, each on the state that the previous one left.
///
/// A request whose key was `used` for it before changes nothing. Pure, except that `locked` becomes
/// the state to be written.
pub(super) fn decide<Request: AsRef<Change>>(
    locked: &mut query::Locked,
    mut used: BTreeMap<Key, Record>,
    requests: &[Request],
    apply: impl Fn(&Request, &mut Booking) -> Result<Effect, Refusal>,
) -> Decisions {
    let mut before: BTreeMap<BookingId, Booking> = BTreeMap::new();
    let mut claimed = Vec::new();
    let answers = requests
        .iter()
        .map(|request| {
            let change = request.as_ref();
            let booking_id = change.booking_id;
            let current = locked
                .bookings
                .get_mut(&booking_id)
                .filter(|booking| change.is_for(booking))
                .ok_or_else(|| change.not_found())?;
            if let Some(claim) = &change.claim
                && was_done(&used, claim, current)?
            {
                return Ok(current.clone().as_of(locked.locked_at));
            }
            let mut next = current.clone();
            if apply(request, &mut next)? == Effect::Changed {
                if !change.allows(current) {
                    return Err(Refusal::BookingChanged {
                        booking_id,
                        current_status: current.status,
                    });
                }
                let was = mem::replace(current, next);
                before.entry(booking_id).or_insert(was);
            }
            if let Some(claim) = &change.claim {
                let record = Record {
                    fingerprint: claim.fingerprint.clone(),
                    show_id: current.show_id,
                    booking_id: Some(booking_id),
                };
                used.insert(claim.key.clone(), record);
                claimed.push((claim.clone(), current.clone()));
            }
            Ok(current.clone().as_of(locked.locked_at))
        })
        .collect();
    let changed = before
        .into_iter()
        .filter_map(|(id, before)| {
            let after = locked.bookings.get(&id)?.clone();
            Some(Changed { before, after })
        })
        .collect();
    Decisions {
        answers,
        changed,
        claimed,
    }
}
