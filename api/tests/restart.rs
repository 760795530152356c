//! A restart of the database under load loses no acknowledged booking, and makes none twice.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use api::config::Args;
use clap::Parser;
use serde_json::json;
use shared::{
    local_postgres::{LocalPostgres, Mode},
    postgres::{self, DatabaseArgs},
};
use testing::{DataDir, a_show, assert_seats_conserved, eventually};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_database_loses_no_acknowledged_booking_and_books_none_twice() {
    let data = DataDir::new("restart");
    let server = LocalPostgres::start(&data.0, Mode::Durable).unwrap();
    let args = DatabaseArgs {
        database_url: server.default_url(),
        database_password_file: None,
        database_connections: 8,
    };
    let database = postgres::connect(&args).await.unwrap();
    shared::migrate::run(&database).await.unwrap();
    let pool = database.pool.clone();
    let show = a_show(&pool, 1_000_000).await;

    let command = ["api", "--database-url", "", "--listen", "127.0.0.1:0"];
    let config = Args::parse_from(command).config;
    let listeners = api::bind(&config).unwrap();
    let url = format!("http://{}/bookings", listeners.api.local_addr().unwrap());
    let stop = CancellationToken::new();
    let serving = {
        let (database, stop) = (database.clone(), stop.clone());
        tokio::spawn(async move { api::serve(listeners, database, &config, stop).await })
    };

    let over = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for client in 0..40 {
        let (url, over, acknowledged) = (url.clone(), over.clone(), acknowledged.clone());
        clients.spawn(async move {
            let http = reqwest::Client::new();
            let mut answers = BTreeMap::new();
            for request in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                // Each request has a unique user name, so that its booking can be found.
                let user = format!("{client}-{request}");
                let body = json!({"showId": show.id, "userName": user, "numberOfSeats": 1});
                let answer = http
                    .post(&url)
                    .json(&body)
                    .send()
                    .await
                    .unwrap()
                    .status()
                    .as_u16();
                acknowledged.fetch_add(u64::from(answer == 201), Ordering::Relaxed);
                answers.insert(user, answer);
            }
            answers
        });
    }
    let goes_on = async |what: &str| {
        let before = acknowledged.load(Ordering::Relaxed);
        eventually(what, async || {
            acknowledged.load(Ordering::Relaxed) > before + 200
        })
        .await;
    };
    goes_on("bookings are made").await;
    let server = tokio::task::spawn_blocking({
        let data = data.0.clone();
        move || {
            drop(server);
            LocalPostgres::start(&data, Mode::Durable).unwrap()
        }
    })
    .await
    .unwrap();
    goes_on("bookings are made again, without intervention").await;
    over.store(true, Ordering::Relaxed);

    // A new pool: the connections of the old one may be dead.
    let pool = postgres::connect(&args).await.unwrap().pool;
    let mut answers = BTreeMap::new();
    for client in clients.join_all().await {
        answers.extend(client);
    }
    let booked: Vec<(String, i64)> =
        sqlx::query_as("SELECT user_name, count(*) FROM bookings GROUP BY user_name")
            .fetch_all(&pool)
            .await
            .unwrap();
    let booked: BTreeMap<String, i64> = booked.into_iter().collect();
    for (user, answer) in &answers {
        let bookings = booked.get(user).copied().unwrap_or_default();
        match answer {
            201 => assert_eq!(bookings, 1, "{user} was acknowledged"),
            503 => assert!(bookings <= 1, "{user} got an error"),
            other => panic!("{user} was answered with {other}"),
        }
    }
    assert!(booked.keys().all(|user| answers.contains_key(user)));
    assert_seats_conserved(&pool).await;
    stop.cancel();
    serving.await.unwrap().unwrap();
    drop(server);
}
