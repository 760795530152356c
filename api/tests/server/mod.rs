//! For tests: the API on a real database, and what is sent to it. Not every test binary uses all of it.
#![allow(dead_code)]

use std::sync::Arc;

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use shared::testing::TestDatabase;
use tokio_util::sync::DropGuard;

/// A server in this process, on a port of its own.
pub(crate) struct Api {
    pub(crate) db: Arc<TestDatabase>,
    pub(crate) base: String,
    pub(crate) client: Client,
    _stop: DropGuard,
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::start_with_queue(100).await
    }

    pub(crate) async fn start_with_queue(queue_max: u32) -> Self {
        Self::serve(Arc::new(TestDatabase::new().await), queue_max)
    }

    /// Another server on the same database.
    pub(crate) fn another(&self) -> Self {
        Self::serve(self.db.clone(), 100)
    }

    fn serve(db: Arc<TestDatabase>, queue_max: u32) -> Self {
        let config = api::config::Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            batch_max: 500,
            batch_lanes: 1,
            queue_max,
        };
        let listener = api::bind(&config).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = tokio_util::sync::CancellationToken::new();
        let (pool, stopped) = (db.pool.clone(), stop.clone());
        tokio::spawn(async move { api::serve(listener, pool, &config, stopped).await });
        Self {
            db,
            base,
            client: Client::new(),
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        parse(self.request(Method::GET, path).send().await.unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.request(Method::POST, path).json(body);
        parse(request.send().await.unwrap()).await
    }

    pub(crate) async fn available_seats(&self, show: i64) -> Value {
        self.get(&format!("/shows/{show}")).await.1["availableSeats"].clone()
    }
}

pub(crate) async fn parse(response: Response) -> (StatusCode, Value) {
    (response.status(), response.json().await.unwrap())
}

pub(crate) fn the_show() -> Value {
    json!({"name": "Morning Show", "startTime": "2025-12-10 10:00:00", "seats": 40})
}

pub(crate) fn alice(number_of_seats: i64) -> Value {
    json!({"showId": 1, "userName": "Alice", "numberOfSeats": number_of_seats})
}
