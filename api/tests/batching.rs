//! Requests that share a transaction, over real HTTP on a real database.

mod server;

use reqwest::StatusCode;
use serde_json::{Value, json};
use testing::{assert_seats_conserved, eventually, until_one_waits_for_a_lock};

use crate::server::{Api, alice, the_show};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clients_cannot_oversell() {
    let api = std::sync::Arc::new(Api::start().await);
    api.post("/shows", &the_show()).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let api = api.clone();
        clients.spawn(async move { api.post("/bookings", &alice(1)).await.0 });
    }
    let answers = clients.join_all().await;
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!(count(StatusCode::CREATED), 40);
    assert_eq!(count(StatusCode::CONFLICT), 60);
    assert_seats_conserved(&api.db.pool).await;
}

/// Requests that wait together.
///
/// While the test holds the lock on the show's row, the transaction of the first request waits for
/// it, and the other requests wait for that transaction.
struct Gathered {
    blocker: sqlx::Transaction<'static, sqlx::Postgres>,
    requests: Vec<tokio::task::JoinHandle<(StatusCode, Value)>>,
}

impl Gathered {
    /// Sends a request of each user for one seat.
    async fn new(api: &std::sync::Arc<Api>, users: &[&'static str]) -> Self {
        let mut blocker = api.db.pool.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM shows FOR UPDATE")
            .execute(&mut *blocker)
            .await
            .unwrap();
        let mut gathered = Self {
            blocker,
            requests: Vec::new(),
        };
        gathered.send(api, users[0]);
        until_one_waits_for_a_lock(&api.db.pool).await;
        for user in &users[1..] {
            gathered.send(api, user);
        }
        gathered
    }

    fn send(&mut self, api: &std::sync::Arc<Api>, user: &'static str) {
        let api = api.clone();
        self.requests.push(tokio::spawn(async move {
            let body = json!({"showId": 1, "userName": user, "numberOfSeats": 1});
            api.post("/bookings", &body).await
        }));
    }
}

async fn user_names(api: &Api) -> Vec<String> {
    let (_, bookings) = api.get("/bookings").await;
    let bookings = bookings.as_array().unwrap();
    bookings
        .iter()
        .map(|b| b["userName"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_member_of_a_batch_fails_alone() {
    let api = std::sync::Arc::new(Api::start().await);
    api.post("/shows", &the_show()).await;
    // Stands for a bug: the database rejects a value that passes our validation.
    sqlx::query("ALTER TABLE bookings ADD CHECK (user_name <> 'poison')")
        .execute(&api.db.pool)
        .await
        .unwrap();
    let users = ["first", "a", "b", "poison", "c", "d"];
    let gathered = Gathered::new(&api, &users).await;
    gathered.blocker.rollback().await.unwrap();
    for (user, request) in users.iter().zip(gathered.requests) {
        let expected = if *user == "poison" { 500 } else { 201 };
        assert_eq!(request.await.unwrap().0, expected, "{user}");
    }
    let mut booked = user_names(&api).await;
    booked.sort_unstable();
    assert_eq!(booked, ["a", "b", "c", "d", "first"]);
    assert_eq!(api.available_seats(1).await, 35);
    assert_seats_conserved(&api.db.pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_answered_with_503_at_once() {
    let api = std::sync::Arc::new(Api::start_with(|config| config.queue_max = 2).await);
    api.post("/shows", &the_show()).await;
    let mut gathered = Gathered::new(&api, &["first"]).await;
    // Two requests fit beside the first one, in the queue of the lane and then of the lock. The
    // rest are answered although no transaction makes progress.
    for _ in 0..10 {
        gathered.send(&api, "more");
    }
    eventually("eight requests are shed", async || {
        gathered
            .requests
            .iter()
            .filter(|request| request.is_finished())
            .count()
            >= 8
    })
    .await;
    gathered.blocker.rollback().await.unwrap();
    let mut statuses = Vec::new();
    for request in gathered.requests {
        let (status, body) = request.await.unwrap();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(body["type"], "/problems/overloaded");
        }
        statuses.push(status.as_u16());
    }
    let booked = statuses.iter().filter(|status| **status == 201).count();
    assert!((1..=3).contains(&booked), "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| **s == 503).count(), 11 - booked);
    assert_eq!(api.available_seats(1).await, 40 - booked);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hang_up_change_nothing_for_the_others() {
    let api = std::sync::Arc::new(Api::start().await);
    api.post("/shows", &the_show()).await;
    let gathered = Gathered::new(&api, &["first", "stays", "goes", "stays", "goes", "stays"]).await;
    for goes in [2, 4] {
        gathered.requests[goes].abort();
    }
    gathered.blocker.rollback().await.unwrap();
    for (index, request) in gathered.requests.into_iter().enumerate() {
        if ![2, 4].contains(&index) {
            assert_eq!(request.await.unwrap().0, StatusCode::CREATED);
        }
    }
    let booked = user_names(&api).await;
    assert_eq!(booked.iter().filter(|user| *user == "stays").count(), 3);
    assert_seats_conserved(&api.db.pool).await;
}
