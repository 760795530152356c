//! Bulk requests: many bookings in one request, each decided by itself.

mod server;

use std::{collections::BTreeSet, sync::Arc};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::{
    api_key::{self, NewApiKey, Scope},
    id::ShowId,
};
use testing::{TestDatabase, assert_seats_conserved, count, execute, lock_show};
use tokio::task::JoinSet;

use crate::server::{Api, alice, parse, the_show};

fn of_user(show_id: i64, user_name: &str, number_of_seats: i64) -> Value {
    json!({"showId": show_id, "userName": user_name, "numberOfSeats": number_of_seats})
}

fn keyed(key: &str, mut booking: Value) -> Value {
    booking["idempotencyKey"] = key.into();
    booking
}

/// Sends the bookings in a bulk request, and returns the results.
async fn book(api: &Api, bookings: &[Value]) -> Vec<Value> {
    let (status, mut answer) = api
        .post("/bookings/bulk", &json!({ "bookings": bookings }))
        .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let Value::Array(results) = answer["results"].take() else {
        panic!("{answer}");
    };
    assert_eq!(results.len(), bookings.len());
    results
}

fn statuses(results: &[Value]) -> Vec<i64> {
    let status = |result: &Value| result["status"].as_i64().unwrap();
    results.iter().map(status).collect()
}

fn ids(results: &[Value]) -> Vec<i64> {
    let id = |result: &Value| result["booking"]["id"].as_i64();
    results.iter().filter_map(id).collect()
}

#[tokio::test]
async fn each_booking_of_a_bulk_request_gets_the_answer_of_a_single_request() {
    let api = Api::start().await;
    let mut small = the_show();
    small["maxSeatsPerBooking"] = json!(3);
    small["maxSeatsPerUser"] = json!(4);
    api.post("/shows", &the_show()).await;
    api.post("/shows", &small).await;
    let bookings = [
        of_user(1, "a", 30),
        of_user(9, "b", 1),
        of_user(2, "c", 4),
        of_user(1, "d", 11),
        of_user(2, "e", 3),
        of_user(2, "e", 2),
        of_user(1, "f", 10),
    ];
    let results = book(&api, &bookings).await;
    assert_eq!(statuses(&results), [201, 404, 409, 409, 201, 409, 201]);
    for (result, request) in results.iter().zip(&bookings) {
        if result["status"] == 201 {
            let (booking, id) = (&result["booking"], &result["booking"]["id"]);
            for member in ["showId", "userName", "numberOfSeats"] {
                assert_eq!(booking[member], request[member]);
            }
            let (_, mut found) = api.get(&format!("/bookings/{id}")).await;
            found["secondsLeft"] = booking["secondsLeft"].clone();
            assert_eq!(found, *booking);
            assert_eq!(result["replayed"], false);
            assert_eq!(result.as_object().unwrap().len(), 3);
        } else {
            assert_eq!(result["problem"]["status"], result["status"]);
            assert_eq!(result.as_object().unwrap().len(), 2);
        }
    }
    // The seats that were left when the fourth was decided.
    assert_eq!(results[3]["problem"]["available"], 10);
    for at in [1, 2, 5] {
        let (status, problem) = api.post("/bookings", &bookings[at]).await;
        assert_eq!(results[at]["status"], status.as_u16());
        assert_eq!(results[at]["problem"], problem);
    }
    assert_eq!(api.available_seats(1).await, 0);
    assert_seats_conserved(&api.db.pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bookings_of_a_show_share_a_transaction() {
    let api = Api::start_with(|config| config.queue_max = 1000).await;
    let mut show = the_show();
    show["seats"] = json!(10_000);
    api.post("/shows", &show).await;
    let transactions = "SELECT count(DISTINCT xmin::text) FROM bookings";
    for round in 1..=5 {
        let results = book(&api, &vec![alice(1); 500]).await;
        assert_eq!(statuses(&results), [201; 500]);
        assert!(ids(&results).is_sorted(), "they are booked in order");
        assert_eq!(count(&api.db.pool, transactions).await, round);
    }
    assert_eq!(api.available_seats(1).await, 7500);
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_and_single_requests_together_cannot_oversell() {
    let api = Arc::new(Api::start_with(|config| config.queue_max = 1000).await);
    for _ in 0..3 {
        api.post("/shows", &the_show()).await;
    }
    let mut clients = JoinSet::new();
    for client in 0..4 {
        let api = api.clone();
        clients.spawn(async move {
            // Of all shows, in another order for each client.
            let show = |n: i64| (n * (client + 1)) % 3 + 1;
            let bookings: Vec<Value> = (0..24).map(|n| of_user(show(n), "bulk", 2)).collect();
            let results = book(&api, &bookings).await;
            2 * statuses(&results).iter().filter(|s| **s == 201).count()
        });
    }
    for client in 0..40 {
        let api = api.clone();
        clients.spawn(async move {
            let (status, _) = api
                .post("/bookings", &of_user(client % 3 + 1, "single", 1))
                .await;
            usize::from(status == StatusCode::CREATED)
        });
    }
    let seats: usize = clients.join_all().await.into_iter().sum();
    let mut left = 0;
    for show in 1..=3 {
        left += api.available_seats(show).await.as_u64().unwrap();
    }
    assert_eq!(seats as u64 + left, 120);
    assert!(
        left <= 3,
        "at most one seat of each show, too few for a booking of two"
    );
    assert_seats_conserved(&api.db.pool).await;
}

#[tokio::test]
async fn a_key_in_a_bulk_request_is_the_key_of_a_single_request() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    let single = async |key: &str, body: &Value| {
        let request = api.request(Method::POST, "/bookings").json(body);
        let request = request.header("Idempotency-Key", key).send();
        let response = request.await.unwrap();
        let replayed = response.headers().contains_key("idempotency-replayed");
        let (status, body) = parse(response).await;
        (status.as_u16(), replayed, body)
    };
    let made = book(
        &api,
        &[keyed("a", alice(1)), alice(1), keyed("b", alice(2))],
    )
    .await;
    assert_eq!(statuses(&made), [201, 201, 201]);
    let (status, replayed, booking) = single("a", &alice(1)).await;
    assert_eq!((status, replayed), (201, true));
    assert_eq!(booking["id"], made[0]["booking"]["id"]);
    assert_eq!(single("b", &alice(1)).await.0, 422);

    let (_, _, booking) = single("c", &alice(3)).await;
    api.post(&format!("/bookings/{}/confirm", booking["id"]), &json!({}))
        .await;
    let again = [
        keyed("c", alice(3)),
        keyed("b", alice(2)),
        keyed("a", alice(9)),
        keyed("d", alice(1)),
    ];
    let results = book(&api, &again).await;
    assert_eq!(statuses(&results), [201, 201, 422, 201]);
    assert_eq!(results[0]["booking"]["id"], booking["id"]);
    assert_eq!(results[0]["booking"]["status"], "CONFIRMED", "as it is now");
    assert_eq!(results[1]["booking"]["id"], made[2]["booking"]["id"]);
    for (result, replayed) in results.iter().zip([true, true, false, false]) {
        assert_eq!(result["replayed"].as_bool().unwrap_or_default(), replayed);
    }
    let problem = &results[2]["problem"];
    assert_eq!(problem["type"], "/problems/idempotency-key-reused");
    assert_eq!(api.available_seats(1).await, 40 - (1 + 1 + 2 + 3 + 1));
}

#[tokio::test]
async fn the_same_key_twice_in_a_bulk_request_books_once() {
    for batch_max in [500, 2, 1] {
        let api = Api::start_with(|config| config.batch_max = batch_max).await;
        api.post("/shows", &the_show()).await;
        let bookings = [
            keyed("k", alice(2)),
            alice(1),
            keyed("k", alice(2)),
            keyed("k", alice(3)),
            keyed("other", alice(2)),
        ];
        let results = book(&api, &bookings).await;
        assert_eq!(statuses(&results), [201, 201, 201, 422, 201]);
        assert_eq!(results[0]["replayed"], false);
        assert_eq!(results[2]["replayed"], true);
        assert_eq!(results[0]["booking"]["id"], results[2]["booking"]["id"]);
        assert_eq!(ids(&results).into_iter().collect::<BTreeSet<_>>().len(), 3);
        assert_eq!(api.available_seats(1).await, 35);
    }
}

/// As with `POST /bookings`, a replay shows the booking only to a caller who sent the same request.
#[tokio::test]
async fn a_key_that_may_only_write_sees_what_it_books_as_with_a_single_request() {
    let db = Arc::new(TestDatabase::new().await);
    let new = NewApiKey {
        name: "shop",
        scopes: &[Scope::ShowsWrite, Scope::BookingsWrite],
        requests_per_second: None,
    };
    let key = api_key::create(&db.pool, &new).await.unwrap().reveal();
    let api = Api::serve(db, |config| config.callers.require_keys = true);
    let post = async |path: &str, body: Value| {
        let request = api.request(Method::POST, path).bearer_auth(&key);
        parse(request.json(&body).send().await.unwrap()).await.1
    };
    post("/shows", the_show()).await;
    for replayed in [false, true] {
        let answer = post(
            "/bookings/bulk",
            json!({"bookings": [keyed("k", alice(1))]}),
        );
        let answer = answer.await;
        assert_eq!(answer["results"][0]["replayed"], replayed);
        assert_eq!(answer["results"][0]["booking"]["userName"], "Alice");
    }
}

#[tokio::test]
async fn a_booking_that_fails_in_a_bulk_request_fails_alone() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    // Stands for a bug: the database rejects a value that passes our validation.
    execute(
        &api.db.pool,
        "ALTER TABLE bookings ADD CHECK (user_name <> 'poison')",
    )
    .await;
    let users = ["a", "poison", "b", "c"].map(|user| of_user(1, user, 1));
    let results = book(&api, &users).await;
    assert_eq!(statuses(&results), [201, 500, 201, 201]);
    assert_eq!(results[1]["problem"]["type"], "/problems/internal");
    assert_eq!(api.available_seats(1).await, 37);
    assert_seats_conserved(&api.db.pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_show_fails_only_its_own_bookings_in_a_bulk_request() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    api.post("/shows", &the_show()).await;
    let blocker = lock_show(&api.db.pool, ShowId(1)).await;
    let bookings = [1, 2, 1, 2].map(|show| of_user(show, "a", 1));
    let results = book(&api, &bookings).await;
    assert_eq!(statuses(&results), [503, 201, 503, 201]);
    assert_eq!(results[0]["problem"]["type"], "/problems/unavailable");
    blocker.rollback().await.unwrap();
    assert_eq!(api.available_seats(1).await, 40);
    assert_eq!(api.available_seats(2).await, 38);
}

#[tokio::test(flavor = "multi_thread")]
async fn bookings_that_do_not_fit_into_the_queue_are_shed_and_the_others_made() {
    let api = Api::start_with(|config| config.queue_max = 6).await;
    api.post("/shows", &the_show()).await;
    let results = book(&api, &vec![alice(1); 5]).await;
    assert_eq!(statuses(&results), [201, 201, 201, 503, 503]);
    let overloaded = &results[4]["problem"];
    assert_eq!(overloaded["type"], "/problems/overloaded");
    assert_eq!(overloaded["detail"], "Nothing was done. Try again shortly.");
    assert_eq!(api.available_seats(1).await, 37);
}
