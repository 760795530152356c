//! After the load: do the seats add up, by what the server itself says?

use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use shared::booking::BookingStatus;
use tokio::time::Instant;

use super::{
    Args, Mode,
    clients::Load,
    http::{Connection, get},
};

/// What the server's shows and bookings come to.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verification {
    /// Seats of all shows.
    pub(crate) seats: i64,
    /// Seats that the shows say are available.
    pub(crate) available: i64,
    /// Seats of pending and confirmed bookings.
    pub(crate) taken: i64,
    /// Bookings listed, in whatever status.
    pub(crate) bookings: u64,
    /// What does not add up; empty when all is well.
    pub(crate) faults: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Show {
    seats: i64,
    available_seats: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Booking {
    number_of_seats: i64,
    status: BookingStatus,
}

/// How long seats may be under way: a hold that has just run out is listed as failed a moment before its seats are
/// back. After the last hold and this time everything has come to rest.
const AT_REST_AFTER: Duration = Duration::from_secs(15);

/// Adds up the seats, until they agree or until everything must have come to rest.
pub(crate) async fn verify(
    load: &Load,
    args: &Args,
    took: Duration,
) -> anyhow::Result<Verification> {
    let hold = Duration::from_secs(args.hold_seconds().into());
    let deadline = Instant::now() + hold + AT_REST_AFTER;
    // Seats whose hold ran out are sold again, so that it is not certain how many bookings there are.
    let for_sale =
        (args.mode == Mode::Sellout && took < hold && load.seen(|seen| seen.errors.is_empty()))
            .then_some(u64::from(args.seats.unsigned_abs()));
    loop {
        let mut verification = add_up(load).await?;
        verification.faults = find_faults(&verification, load.booked(), for_sale);
        if verification.faults.is_empty() || Instant::now() > deadline {
            return Ok(verification);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn add_up(load: &Load) -> anyhow::Result<Verification> {
    let mut connection = Connection::open(&load.target).await?;
    let mut sum = Verification::default();
    for show_id in &load.shows {
        let mut next = Some(format!("/bookings?showId={show_id}&limit=1000"));
        while let Some(page) = next {
            let reply = connection.send(&get(&load.target, &page)).await?;
            ensure!(reply.status == 200, "GET {page}: {}", reply.status);
            let bookings: Vec<Booking> = serde_json::from_slice(reply.body)?;
            sum.bookings += bookings.len() as u64;
            sum.taken += bookings
                .iter()
                .filter(|b| matches!(b.status, BookingStatus::Pending | BookingStatus::Confirmed))
                .map(|b| b.number_of_seats)
                .sum::<i64>();
            next = reply.next;
        }
        let path = format!("/shows/{show_id}");
        let reply = connection.send(&get(&load.target, &path)).await?;
        let show: Show = serde_json::from_slice(reply.body).with_context(|| path)?;
        sum.seats += show.seats;
        sum.available += show.available_seats;
    }
    Ok(sum)
}

/// What is wrong with `sum`, when so many bookings were acknowledged. `for_sale` is how many should have been sold, if
/// that is certain.
fn find_faults(sum: &Verification, acknowledged: u64, for_sale: Option<u64>) -> Vec<String> {
    let Verification {
        seats,
        available,
        taken,
        bookings,
        ..
    } = sum;
    let mut faults = Vec::new();
    if *seats != available + taken {
        faults.push(format!(
            "{seats} seats, but {available} are available and {taken} taken"
        ));
    }
    if *bookings < acknowledged {
        faults.push(format!(
            "{acknowledged} bookings were acknowledged, {bookings} are there"
        ));
    }
    if let Some(for_sale) = for_sale.filter(|for_sale| *for_sale != acknowledged) {
        faults.push(format!(
            "{for_sale} seats were for sale, {acknowledged} were sold"
        ));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_add_up_is_told() {
        let sum = |available, bookings| Verification {
            seats: 100,
            available,
            taken: 60,
            bookings,
            faults: Vec::new(),
        };
        let count = |sum, for_sale| find_faults(&sum, 60, for_sale).len();
        assert_eq!(count(sum(40, 60), None), 0);
        assert_eq!(count(sum(40, 75), Some(60)), 0);
        assert_eq!(count(sum(39, 60), None), 1, "a seat was lost");
        assert_eq!(count(sum(41, 60), None), 1, "a seat was sold twice");
        assert_eq!(
            count(sum(40, 59), None),
            1,
            "an acknowledged booking is missing"
        );
        assert_eq!(count(sum(40, 60), Some(61)), 1, "a seat was not sold");
    }
}
