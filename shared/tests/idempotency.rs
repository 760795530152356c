//! Requests with an idempotency key.

use std::sync::Arc;

use chrono::DateTime;
use shared::{
    batch::Batch,
    booking::{
        BookingStatus, Refusal, cancel, confirm,
        reserve::{self},
    },
    id::ShowId,
    idempotency::{Claim, Key},
    postgres::Session,
    show::{self, Creation, NewShow},
};
use testing::{
    TestDatabase, a_show, assert_seats_conserved, available_seats, change, count, direct, keyed,
    request, reserve_with,
};
use tokio::{sync::Barrier, task::JoinSet};

#[tokio::test]
async fn a_repeated_request_gets_the_booking_that_the_first_one_made_as_it_is_now() {
    let db = TestDatabase::new().await;
    let (show, other) = (a_show(&db.pool, 10).await, a_show(&db.pool, 10).await);
    let mut session = db.session();
    let first = keyed(0, "k", request(show.id, 2));
    let made = reserve_with(&mut session, first.clone()).await.unwrap();
    assert!(!made.is_replay);

    let again = reserve_with(&mut session, first.clone()).await.unwrap();
    assert!(again.is_replay);
    assert_eq!(again.resource.id, made.resource.id);
    let mut batch = Batch::of([change(made.resource.id)]);
    confirm::confirm(&mut session, &mut batch).await.unwrap();
    let again = reserve_with(&mut session, first.clone()).await.unwrap();
    assert_eq!(again.resource.status, BookingStatus::Confirmed);

    for other_request in [
        request(show.id, 3),
        request(other.id, 2),
        request(ShowId(-1), 2),
    ] {
        let refused = reserve_with(&mut session, keyed(0, "k", other_request)).await;
        assert_eq!(refused, Err(Refusal::KeyReused));
    }
    let of_another = keyed(7, "k", request(show.id, 2));
    let made = reserve_with(&mut session, of_another).await.unwrap();
    assert!(!made.is_replay, "keys belong to their callers");

    // A refusal is decided afresh.
    let too_many = keyed(0, "late", request(show.id, 7));
    assert!(reserve_with(&mut session, too_many.clone()).await.is_err());
    let mut batch = Batch::of([change(again.resource.id)]);
    cancel::cancel(&mut session, &mut batch).await.unwrap();
    let made = reserve_with(&mut session, too_many).await.unwrap();
    assert!(!made.is_replay);
    assert_eq!(available_seats(&db.pool, show.id).await, 1);
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_at_the_same_moment_books_once_and_everybody_gets_that_booking() {
    let db = TestDatabase::new().await;
    let show = a_show(&db.pool, 100).await;
    let barrier = Arc::new(Barrier::new(40));
    let mut clients = JoinSet::new();
    for client in 0..40 {
        let (pool, barrier) = (db.pool.clone(), barrier.clone());
        clients.spawn(async move {
            // Two requests in a batch, as they may come: with the same key, or with the key of
            // another request.
            let key = keyed(0, "same", request(show.id, 2));
            let own = keyed(0, &format!("{client}"), request(show.id, 1));
            barrier.wait().await;
            let mut batch = Batch::of([own, key.clone(), key]);
            let answers = reserve::reserve(&mut Session::new(&direct(&pool)), &mut batch).await;
            answers.unwrap()
        });
    }
    let answers = clients.join_all().await;
    let same: Vec<_> = answers
        .iter()
        .flat_map(|answers| &answers[1..])
        .map(|answer| answer.as_ref().unwrap())
        .collect();
    assert_eq!(same.iter().filter(|made| !made.is_replay).count(), 1);
    assert!(
        same.iter()
            .all(|made| made.resource.id == same[0].resource.id)
    );
    assert_eq!(available_seats(&db.pool, show.id).await, 100 - 2 - 40);
    assert_seats_conserved(&db.pool).await;
}

/// The two requests share no lock that would order them: the key itself does.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_for_two_shows_at_the_same_moment_books_one_of_them() {
    let db = TestDatabase::new().await;
    let (one, two) = (a_show(&db.pool, 50).await, a_show(&db.pool, 50).await);
    for round in 0..20 {
        let barrier = Arc::new(Barrier::new(2));
        let mut clients = JoinSet::new();
        for show_id in [one.id, two.id] {
            let (pool, barrier) = (db.pool.clone(), barrier.clone());
            clients.spawn(async move {
                let request = keyed(0, &format!("{round}"), request(show_id, 1));
                barrier.wait().await;
                reserve_with(&mut Session::new(&direct(&pool)), request).await
            });
        }
        let answers = clients.join_all().await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        assert!(answers.contains(&Err(Refusal::KeyReused)));
    }
    assert_eq!(count(&db.pool, "SELECT count(*) FROM bookings").await, 20);
    assert_seats_conserved(&db.pool).await;
}

#[tokio::test]
async fn a_show_is_created_once_for_each_key() {
    let db = TestDatabase::new().await;
    let mut session = db.session();
    let creation = |key: &str, seats| {
        let text = key.to_owned();
        Creation {
            new: NewShow::new("Matinée", DateTime::UNIX_EPOCH, seats),
            claim: Some(Claim::new(Key { owner: 1, text }, "create", &seats)),
        }
    };
    let first = show::create(&mut session, creation("k", 5)).await.unwrap();
    let again = show::create(&mut session, creation("k", 5)).await.unwrap();
    let (first, again) = (first.unwrap(), again.unwrap());
    assert!(!first.is_replay && again.is_replay);
    assert_eq!(again.resource, first.resource);
    let refused = show::create(&mut session, creation("k", 6)).await.unwrap();
    assert_eq!(refused, Err(Refusal::KeyReused));
    let booking = keyed(1, "k", request(first.resource.id, 1));
    let refused = reserve_with(&mut session, booking).await;
    assert_eq!(refused, Err(Refusal::KeyReused), "the key made a show");
}
