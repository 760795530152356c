//! Builders of shows, bookings and requests.

use chrono::DateTime;
use shared::{
    batch::Batch,
    booking::{Booking, Change, reserve},
    id::BookingId,
    jobs::ExpireBookings,
    postgres::Session,
    show::{self, Creation, NewShow, Show},
};
use sqlx::PgPool;

use crate::direct;

/// Creates a show with this many seats and holds of two minutes.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn a_show(pool: &PgPool, seats: i32) -> Show {
    a_show_with_hold(pool, seats, show::DEFAULT_HOLD_SECONDS).await
}

/// Creates a show whose holds last this long. One second is allowed here, unlike for clients.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn a_show_with_hold(pool: &PgPool, seats: i32, hold_seconds: i32) -> Show {
    create(
        pool,
        NewShow {
            hold_seconds,
            ..NewShow::new("Morning Show", DateTime::UNIX_EPOCH, seats)
        },
    )
    .await
}

/// Creates a show.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn create(pool: &PgPool, new: NewShow) -> Show {
    let creation = Creation { new, claim: None };
    let made = show::create(&mut Session::new(&direct(pool)), creation).await;
    made.expect("created").expect("not refused").resource
}

/// Creates a pending booking of a show.
///
/// # Panics
///
/// Panics if the show has not enough seats or the database fails.
pub async fn a_hold(pool: &PgPool, show: &Show, number_of_seats: i32) -> Booking {
    let request = reserve::Request::new(show.id, "Alice", number_of_seats);
    let mut answers = reserve::reserve(&mut Session::new(&direct(pool)), &mut Batch::of([request]))
        .await
        .expect("reserved");
    answers.remove(0).expect("enough seats").resource
}

/// Creates a request to confirm or cancel a booking, whatever its version.
#[must_use]
pub fn change<Request: From<Change>>(booking_id: BookingId) -> Request {
    Request::from(Change {
        booking_id,
        show_id: None,
        only_if: None,
        claim: None,
    })
}

/// Creates a job that expires these bookings.
#[must_use]
pub fn job(booking_ids: &[BookingId]) -> ExpireBookings {
    ExpireBookings {
        show_id: None,
        booking_ids: booking_ids.to_vec(),
    }
}
