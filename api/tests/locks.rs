//! Rows that another session keeps locked, as with `BEGIN; SELECT … FOR UPDATE` in psql.
//!
//! A request that needs such a row waits for it, and gets a 503 if it cannot acquire it. No other
//! request waits. Unless a test is about the release of a lock, it keeps its lock until all
//! responses have arrived.

mod server;

use shared::id::ShowId;
use std::sync::Arc;

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use testing::{assert_seats_conserved, eventually, lock_show, until_one_waits_for_a_lock};
use tokio::task::{JoinHandle, JoinSet};

use crate::server::{Api, parse, the_show};

/// Starts an api with three shows, where booking n has two seats of show n.
async fn three_shows() -> Arc<Api> {
    let api = Arc::new(Api::start().await);
    for show in 1..=3 {
        api.post("/shows", &the_show()).await;
        assert_eq!(book(&api, show).await.status(), StatusCode::CREATED);
    }
    api
}

async fn book(api: &Api, show: i64) -> Response {
    let body = json!({"showId": show, "userName": "Alice", "numberOfSeats": 2});
    let request = api.request(Method::POST, "/bookings").json(&body);
    request.send().await.unwrap()
}

async fn change(api: &Api, booking: i64, action: &str) -> Response {
    let request = api.request(Method::POST, &format!("/bookings/{booking}/{action}"));
    request.json(&json!({"seconds": 300})).send().await.unwrap()
}

async fn lock_rows(api: &Api, rows: &'static str) -> Transaction<'static, Postgres> {
    let mut lock = api.db.pool.begin().await.unwrap();
    sqlx::query(rows).execute(&mut *lock).await.unwrap();
    lock
}

/// Asserts that the response is the one to a request that could not acquire its lock.
async fn assert_told(answer: JoinHandle<Response>) {
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    let (_, problem): (_, Value) = parse(answer).await;
    assert_eq!(problem["type"], "/problems/unavailable");
}

fn spawn<F>(future: F) -> JoinHandle<Response>
where
    F: Future<Output = Response> + Send + 'static,
{
    tokio::spawn(future)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_show_keeps_nobody_from_booking_others() {
    let api = three_shows().await;
    let lock = lock_show(&api.db.pool, ShowId(1)).await;
    let of = |show| {
        let api = api.clone();
        spawn(async move { book(&api, show).await })
    };
    let waits = of(1);
    until_one_waits_for_a_lock(&api.db.pool).await;
    // Some share a batch with requests for the locked show, others come after that batch.
    let others: Vec<_> = [2, 3].into_iter().cycle().take(30).map(of).collect();
    let wait_too = [of(1), of(1)];
    for other in others {
        assert_eq!(other.await.unwrap().status(), StatusCode::CREATED);
    }
    assert_eq!(book(&api, 2).await.status(), StatusCode::CREATED);
    assert_told(waits).await;
    for waits in wait_too {
        assert_told(waits).await;
    }
    lock.rollback().await.unwrap();
    assert_eq!(book(&api, 1).await.status(), StatusCode::CREATED);
    assert_seats_conserved(&api.db.pool).await;
}

/// Waiting requests get the lock as soon as it is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_show_that_was_locked_for_a_moment_is_booked() {
    let api = three_shows().await;
    let lock = lock_show(&api.db.pool, ShowId(1)).await;
    let mut waiting = JoinSet::new();
    for _ in 0..10 {
        let api = api.clone();
        waiting.spawn(async move { book(&api, 1).await.status() });
    }
    until_one_waits_for_a_lock(&api.db.pool).await;
    lock.rollback().await.unwrap();
    assert_eq!(waiting.join_all().await, [StatusCode::CREATED; 10]);
    assert_seats_conserved(&api.db.pool).await;
}

/// A batch is locked by whoever changes one of its bookings.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_booking_or_batch_keeps_nobody_from_changing_others_or_booking() {
    const BOOKING: &str = "SELECT FROM bookings WHERE id = 1 FOR UPDATE";
    const BATCH: &str = "SELECT FROM batches WHERE id = 1 FOR UPDATE";
    for (action, row) in [
        ("confirm", BOOKING),
        ("extend", BOOKING),
        ("cancel", BOOKING),
        ("confirm", BATCH),
        ("extend", BATCH),
        ("cancel", BATCH),
    ] {
        let api = three_shows().await;
        let lock = lock_rows(&api, row).await;
        let of = |booking| {
            let api = api.clone();
            spawn(async move { change(&api, booking, action).await })
        };
        let waits = of(1);
        until_one_waits_for_a_lock(&api.db.pool).await;
        let (waits_too, others) = (of(1), [of(2), of(3)]);
        for other in others {
            assert_eq!(other.await.unwrap().status(), StatusCode::OK, "{action}");
        }
        // The show of the booking is not locked meanwhile.
        assert_eq!(book(&api, 1).await.status(), StatusCode::CREATED);
        assert_told(waits).await;
        assert_told(waits_too).await;
        lock.rollback().await.unwrap();
        assert_eq!(change(&api, 1, action).await.status(), StatusCode::OK);
        assert_seats_conserved(&api.db.pool).await;
    }
}

/// Another api confirms bookings of many batches in one transaction, whose COMMIT takes long.
#[tokio::test(flavor = "multi_thread")]
async fn many_batches_that_were_locked_for_a_moment_are_waited_for() {
    let api = three_shows().await;
    let mut bookings = Vec::new();
    for _ in 0..15 {
        let (status, booking): (_, Value) = parse(book(&api, 1).await).await;
        assert_eq!(status, StatusCode::CREATED);
        bookings.push(booking["id"].as_i64().unwrap());
    }
    let lock = lock_rows(&api, "SELECT FROM batches FOR UPDATE").await;
    let mut waiting = JoinSet::new();
    for booking in bookings {
        let api = api.clone();
        waiting.spawn(async move { change(&api, booking, "confirm").await.status() });
    }
    // Longer than a lane waits for locks, so they wait elsewhere.
    eventually("a transaction waits for long", async || {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND waitstart < clock_timestamp() - interval '100 ms')",
        )
        .fetch_one(&api.db.pool)
        .await
        .unwrap()
    })
    .await;
    lock.rollback().await.unwrap();
    assert_eq!(waiting.join_all().await, [StatusCode::OK; 15]);
    assert_seats_conserved(&api.db.pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_show_keeps_nobody_from_cancelling_bookings_of_others() {
    let api = three_shows().await;
    let lock = lock_show(&api.db.pool, ShowId(1)).await;
    let of = |booking| {
        let api = api.clone();
        spawn(async move { change(&api, booking, "cancel").await })
    };
    let waits = of(1);
    until_one_waits_for_a_lock(&api.db.pool).await;
    for other in [of(2), of(3)] {
        assert_eq!(other.await.unwrap().status(), StatusCode::OK);
    }
    // Confirming a booking of the locked show works too: it needs no lock on the show.
    assert_eq!(change(&api, 1, "confirm").await.status(), StatusCode::OK);
    assert_told(waits).await;
    lock.rollback().await.unwrap();
    assert_seats_conserved(&api.db.pool).await;
}
