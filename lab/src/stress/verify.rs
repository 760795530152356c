//! Verification after a load, based on what the server itself lists.
//!
//! The bookings must agree with what the server acknowledged, and the seats must add up.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use shared::booking::BookingStatus;
use tokio::time::{Instant, sleep};

use super::{
    acknowledgements::{Acknowledged, Acknowledgements},
    http::{Connection, get},
    load::{Load, Outcome},
};

/// Totals of the server's shows and bookings, and the faults found in them.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verification {
    /// Total seats of the shows.
    pub(crate) seats: i64,
    /// Total seats that the shows report as available.
    pub(crate) available: i64,
    /// Total seats of pending and confirmed bookings.
    pub(crate) taken: i64,
    /// Number of bookings listed, in any status.
    pub(crate) bookings: usize,
    /// Faults found; empty if everything agrees.
    pub(crate) faults: Vec<String>,
}

/// The expected final state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    /// Number of bookings made, if it is certain.
    pub(crate) sold: Option<u64>,
    /// Whether every booking must be resolved.
    pub(crate) no_holds: bool,
    /// Timeout for the server to reach this state.
    pub(crate) within: Duration,
}

impl Expected {
    /// Expects every booking to be resolved within this time.
    pub(crate) fn all_resolved(within: Duration) -> Self {
        Self {
            no_holds: true,
            within,
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Show {
    seats: i64,
    available_seats: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Booking {
    id: i64,
    user_name: String,
    number_of_seats: i64,
    status: BookingStatus,
}

impl Booking {
    /// Returns the number of the turn that booked it.
    fn turn(&self) -> Option<u64> {
        self.user_name.strip_prefix("user ")?.parse().ok()
    }
}

/// Lists and checks until there are no faults, or until `expected.within` has passed.
///
/// Returns the result of the last check.
pub(crate) async fn verify(outcome: &Outcome, expected: &Expected) -> anyhow::Result<Verification> {
    let deadline = Instant::now() + expected.within;
    loop {
        let is_last = Instant::now() >= deadline;
        match list(&outcome.load).await {
            Ok(mut listed) => {
                listed.sum.faults = find_faults(&listed, &outcome.acks, expected);
                if is_last || listed.sum.faults.is_empty() {
                    return Ok(listed.sum);
                }
            }
            Err(error) if is_last => return Err(error),
            // The server may be restarting.
            Err(_) => {}
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// Bookings that the server lists, and their totals.
#[derive(Default)]
struct Listed {
    sum: Verification,
    bookings: Vec<Booking>,
}

async fn list(load: &Load) -> anyhow::Result<Listed> {
    let target = &load.targets[0];
    let mut connection = Connection::open(target).await?;
    let mut listed = Listed::default();
    for show_id in &load.shows {
        let mut next = Some(format!("/bookings?showId={show_id}&limit=1000"));
        while let Some(page) = next {
            let reply = connection.send(&get(target, &page)).await?;
            ensure!(reply.status == 200, "GET {page}: {}", reply.status);
            let bookings: Vec<Booking> = serde_json::from_slice(reply.body)?;
            listed.bookings.extend(bookings);
            next = reply.next;
        }
        let path = format!("/shows/{show_id}");
        let reply = connection.send(&get(target, &path)).await?;
        let show: Show = serde_json::from_slice(reply.body).with_context(|| path)?;
        listed.sum.seats += show.seats;
        listed.sum.available += show.available_seats;
    }
    listed.sum.bookings = listed.bookings.len();
    listed.sum.taken = listed
        .bookings
        .iter()
        .filter(|b| matches!(b.status, BookingStatus::Pending | BookingStatus::Confirmed))
        .map(|b| b.number_of_seats)
        .sum();
    Ok(listed)
}

/// Returns the faults in what the server lists. Pure.
fn find_faults(listed: &Listed, acks: &Acknowledgements, expected: &Expected) -> Vec<String> {
    let mut faults = Faults::default();
    let Verification {
        seats,
        available,
        taken,
        ..
    } = listed.sum;
    if seats != available + taken {
        faults.add("seats do not add up", || {
            format!("{seats} seats, but {available} are available and {taken} taken")
        });
    }
    let sold = acks.acknowledged.len() as u64;
    if let Some(expected) = expected.sold.filter(|expected| *expected != sold) {
        faults.add("acknowledged bookings do not match the seats", || {
            format!("{sold} acknowledged, {expected} seats")
        });
    }
    find_faults_of_acknowledged(listed, acks, &mut faults);

    let acknowledged = acks
        .acknowledged
        .iter()
        .map(|acknowledged| acknowledged.turn);
    let may_have_booked: HashSet<u64> = acks
        .maybe_done
        .iter()
        .copied()
        .chain(acknowledged)
        .collect();
    let mut turns = HashSet::new();
    for booking in &listed.bookings {
        if expected.no_holds && booking.status == BookingStatus::Pending {
            faults.add("bookings are still held", || format!("{booking:?}"));
        }
        let Some(turn) = booking.turn() else {
            continue;
        };
        if !turns.insert(turn) {
            faults.add("requests were booked twice", || format!("{booking:?}"));
        }
        if !may_have_booked.contains(&turn) {
            faults.add("bookings were made for requests that were refused", || {
                format!("{booking:?}")
            });
        }
    }
    faults.into_texts()
}

fn find_faults_of_acknowledged(listed: &Listed, acks: &Acknowledgements, faults: &mut Faults) {
    let by_id: HashMap<i64, &Booking> = listed.bookings.iter().map(|b| (b.id, b)).collect();
    let mut ids = HashSet::new();
    for acknowledged in &acks.acknowledged {
        let Acknowledged {
            booking_id,
            turn,
            last,
        } = *acknowledged;
        if !ids.insert(booking_id) {
            faults.add("bookings were acknowledged twice", || {
                format!("{acknowledged:?}")
            });
        }
        match by_id.get(&booking_id) {
            None => faults.add("acknowledged bookings are missing", || {
                format!("{acknowledged:?}")
            }),
            Some(booking) if booking.turn() != Some(turn) || !last.allows(booking.status) => {
                faults.add("bookings differ from what was acknowledged", || {
                    format!("{acknowledged:?}, now {booking:?}")
                });
            }
            Some(_) => {}
        }
    }
}

/// Number of faults of each kind, with an example.
#[derive(Default)]
struct Faults(HashMap<&'static str, (usize, String)>);

impl Faults {
    fn add(&mut self, what: &'static str, example: impl FnOnce() -> String) {
        self.0.entry(what).or_insert_with(|| (0, example())).0 += 1;
    }

    fn into_texts(self) -> Vec<String> {
        let mut texts: Vec<String> = self
            .0
            .into_iter()
            .map(|(what, (count, example))| format!("{what}: {count}, for example {example}"))
            .collect();
        texts.sort_unstable();
        texts
    }
}

#[cfg(test)]
mod tests;
