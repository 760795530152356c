//! Test support: an api on a real database, and requests to it.
//!
//! Not every test binary uses all of it.
#![allow(dead_code)]

use std::sync::Arc;

use api::config::{Args, Config};
use clap::Parser;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use testing::TestDatabase;
use tokio_util::sync::DropGuard;

/// An api in this process, on its own ports.
pub(crate) struct Api {
    pub(crate) db: Arc<TestDatabase>,
    pub(crate) base: String,
    /// Base URL of the admin listener.
    pub(crate) admin: String,
    pub(crate) client: Client,
    _stop: DropGuard,
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(set: impl FnOnce(&mut Config)) -> Self {
        Self::serve(Arc::new(TestDatabase::new().await), set)
    }

    /// Starts another api on the same database.
    pub(crate) fn another(&self) -> Self {
        self.another_with(|_| ())
    }

    pub(crate) fn another_with(&self, set: impl FnOnce(&mut Config)) -> Self {
        Self::serve(self.db.clone(), set)
    }

    pub(crate) fn serve(db: Arc<TestDatabase>, set: impl FnOnce(&mut Config)) -> Self {
        let config = config(set);
        let listeners = api::bind(&config).unwrap();
        let base = format!("http://{}", listeners.api.local_addr().unwrap());
        let admin = format!("http://{}", listeners.admin.local_addr().unwrap());
        let stop = tokio_util::sync::CancellationToken::new();
        let (database, stopped) = (db.database.clone(), stop.clone());
        tokio::spawn(async move { api::serve(listeners, database, &config, stopped).await });
        Self {
            db,
            base,
            admin,
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

/// Returns the default settings with free ports, changed by `set`.
pub(crate) fn config(set: impl FnOnce(&mut Config)) -> Config {
    let args = [
        "api",
        "--database-url",
        "",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        // The hosts in requests of tests that write HTTP themselves.
        "--allowed-hosts",
        "a,x",
    ];
    let mut config = Args::parse_from(args.into_iter().chain(["--queue-max", "100"])).config;
    set(&mut config);
    config
}

/// Connects to the same database with a separate pool, because an api that stops closes its pool.
pub(crate) async fn own_connections(api: &Api) -> shared::postgres::Database {
    let args = shared::postgres::DatabaseArgs {
        database_url: api.db.url.clone(),
        database_password_file: None,
        database_connections: 2,
    };
    shared::postgres::connect(&args).await.unwrap()
}
