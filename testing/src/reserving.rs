//! Requests to reserve, and their answers.

use shared::{
    batch::Batch,
    booking::{
        Booking, Refusal,
        reserve::{self, Outcome, Reserve},
    },
    id::ShowId,
    idempotency::{Claim, Key},
    postgres::{Engine, Session, Work},
};
use sqlx::PgPool;

use crate::direct;

/// Creates a request for seats of a show, without a key.
#[must_use]
pub fn request(show_id: ShowId, number_of_seats: i32) -> reserve::Request {
    reserve::Request::new(show_id, "Alice", number_of_seats)
}

/// Reserves seats of a show.
///
/// # Errors
///
/// Fails if the request is refused.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn reserve_one(pool: &PgPool, show_id: ShowId, seats: i32) -> Result<Booking, Refusal> {
    let answers = reserve::reserve(
        &mut Session::new(&direct(pool)),
        &mut Batch::of([request(show_id, seats)]),
    )
    .await
    .unwrap();
    booked(answers).remove(0)
}

/// Reserves in this transaction, without retries.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn reserve_in(
    tx: &mut sqlx::PgConnection,
    batch: Vec<reserve::Request>,
) -> Vec<Result<Booking, Refusal>> {
    let mut reserve = Reserve {
        batch: &mut Batch::of(batch),
        engine: Engine::Postgres,
        waits: 0,
    };
    let Outcome::Answered(answers) = reserve.run(tx).await.unwrap() else {
        panic!("reserving without waits must answer");
    };
    booked(answers)
}

/// Gives a request an idempotency key of this owner.
#[must_use]
pub fn keyed(owner: i64, key: &str, request: reserve::Request) -> reserve::Request {
    let what = (request.show_id, &request.user_name, request.number_of_seats);
    let text = key.to_owned();
    let claim = Claim::new(Key { owner, text }, "reserve", &what);
    reserve::Request {
        claim: Some(claim),
        ..request
    }
}

/// Reserves in this session.
///
/// # Errors
///
/// Fails if the request is refused.
///
/// # Panics
///
/// Panics if the database fails.
pub async fn reserve_with(session: &mut Session, request: reserve::Request) -> reserve::Answer {
    let answers = reserve::reserve(session, &mut Batch::of([request])).await;
    answers.unwrap().remove(0)
}

/// Returns the bookings in the answers, whether they were made now or earlier.
#[must_use]
pub fn booked(answers: Vec<reserve::Answer>) -> Vec<Result<Booking, Refusal>> {
    answers
        .into_iter()
        .map(|answer| Ok(answer?.resource))
        .collect()
}
