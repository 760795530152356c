//! Tests of the admin listener.

mod server;

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use shared::api_key::{self, NewApiKey, Scope};
use testing::{eventually, execute, let_pass};

use crate::server::{Api, alice, parse, the_show};

async fn ask(api: &Api, method: Method, path: &str) -> (StatusCode, Value) {
    let request = api.client.request(method, format!("{}{path}", api.admin));
    parse(request.send().await.unwrap()).await
}

async fn get(api: &Api, path: &str) -> Value {
    let (status, body) = ask(api, Method::GET, path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    body
}

/// Reads the value of a metric from `/metrics`; none if the metric is absent.
async fn figure(api: &Api, name: &str) -> Option<f64> {
    let answer = api
        .client
        .get(format!("{}/metrics", api.admin))
        .send()
        .await
        .unwrap();
    let text = answer.text().await.unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.parse().ok()
}

/// Starts an api with a show and two bookings, one of them confirmed.
async fn that_sold() -> Api {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    api.post("/bookings", &alice(2)).await;
    api.post("/bookings", &alice(3)).await;
    api.post("/bookings/1/confirm", &Value::Null).await;
    api
}

#[tokio::test]
async fn a_sale_is_seen_from_all_sides() {
    let api = that_sold().await;
    eventually("a poll has seen both bookings", async || {
        get(&api, "/overview").await["now"]["newestBooking"] == 2
    })
    .await;
    let overview = get(&api, "/overview").await;
    assert_eq!(overview["failure"], Value::Null);
    assert_eq!(overview["now"]["queues"][0]["depth"]["scheduled"], 2);
    assert_eq!(overview["now"]["queues"][0]["dueLagSeconds"], 0.0);
    let at = overview["now"]["at"].as_str().unwrap();
    let later = get(&api, &format!("/overview?since={at}")).await;
    assert!(
        later["history"]
            .as_array()
            .unwrap()
            .iter()
            .all(|point| point["at"].as_str().unwrap() > at)
    );

    let sales = get(&api, "/sales").await;
    let seats = json!({"seats": 40, "available": 35, "held": 3, "confirmed": 2});
    for (name, count) in seats.as_object().unwrap() {
        assert_eq!(sales[0][name], *count, "{name}");
    }
    let booking = get(&api, "/bookings/2").await;
    assert_eq!(booking["userName"], "Alice");
    let job = &booking["jobs"][0];
    assert_eq!(job["state"], "scheduled");
    let details = get(&api, &format!("/jobs/{}", job["id"].as_str().unwrap())).await;
    assert_eq!(details["payload"], json!({"showId": 1, "bookingIds": [2]}));
    assert_eq!(details["bookings"][0]["id"], 2);
    assert_eq!(details["timeline"][0]["what"], "created");
    let database = get(&api, "/database").await;
    assert!(database["bytes"].as_i64().unwrap() > 1_000_000);
    assert_eq!(database["tables"].as_array().unwrap().len(), 4);
    assert_eq!(get(&api, "/workers").await, json!([]));
}

#[tokio::test]
async fn jobs_are_listed_in_pages_by_filter() {
    let api = that_sold().await;
    let list = format!("{}/queues/expire-bookings/jobs?limit=1", api.admin);
    let first = api.client.get(&list).send().await.unwrap();
    let link = first.headers()[header::LINK].to_str().unwrap().to_owned();
    let next = link.strip_prefix('<').unwrap().split('>').next().unwrap();
    let next = first.url().join(next).unwrap();
    let (_, first) = parse(first).await;
    let second = api.client.get(next).send().await.unwrap();
    assert!(!second.headers().contains_key(header::LINK));
    let (_, second) = parse(second).await;
    assert!(
        first[0]["id"].as_str() > second[0]["id"].as_str(),
        "newest first"
    );

    let jobs = "/queues/expire-bookings/jobs";
    assert_eq!(get(&api, &format!("{jobs}?bookingId=1")).await, second);
    assert_eq!(
        get(&api, &format!("{jobs}?showId=1"))
            .await
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(get(&api, &format!("{jobs}?state=dead")).await, json!([]));
    let count = get(&api, &format!("{jobs}/count?state=scheduled")).await;
    assert_eq!(count, json!({"count": 2, "hasMore": false}));
}

#[tokio::test]
async fn jobs_and_queues_are_steered_and_it_is_noted() {
    let api = that_sold().await;
    let job = get(&api, "/bookings/2").await["jobs"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let (status, cancelled) = ask(&api, Method::POST, &format!("/jobs/{job}/cancel")).await;
    assert_eq!(
        (status, &cancelled["state"]),
        (StatusCode::OK, &json!("dead"))
    );
    let (status, problem) = ask(&api, Method::POST, &format!("/jobs/{job}/cancel")).await;
    assert_eq!(
        (status, &problem["state"]),
        (StatusCode::CONFLICT, &json!("dead"))
    );
    let (status, retried) = ask(&api, Method::POST, &format!("/jobs/{job}/retry")).await;
    assert_eq!((status, &retried["state"]), (StatusCode::OK, &json!("due")));
    let all = "/queues/expire-bookings/jobs/run?state=scheduled";
    assert_eq!(
        ask(&api, Method::POST, all).await,
        (StatusCode::OK, json!({"changed": 1}))
    );
    let (_, paused) = ask(&api, Method::POST, "/queues/expire-bookings/pause").await;
    assert_eq!(
        paused,
        json!({"queue": "expire-bookings", "isPaused": true, "changed": true})
    );
    eventually("the pause is seen", async || {
        !get(&api, "/queues").await[0]["paused"].is_null()
    })
    .await;

    let noted = get(&api, "/interventions").await;
    let noted: Vec<_> = noted
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|one| json!([one["actor"], one["action"], one["target"], one["affected"]]))
        .collect();
    let job = format!("job {job}");
    let expected = [
        json!(["127.0.0.1", "cancel", job, 1]),
        json!(["127.0.0.1", "cancel", job, 0]),
        json!(["127.0.0.1", "retry", job, 1]),
        json!([
            "127.0.0.1",
            "run",
            "jobs of expire-bookings with state=scheduled",
            1
        ]),
        json!(["127.0.0.1", "pause", "expire-bookings", 1]),
    ];
    assert_eq!(noted, expected);
}

#[tokio::test]
async fn bad_requests_get_clear_problems() {
    let api = that_sold().await;
    for (method, path, status, kind) in [
        (Method::GET, "/nowhere", 404, "no-such-route"),
        (Method::POST, "/sales", 405, "method-not-allowed"),
        (Method::GET, "/jobs/x", 404, "job-not-found"),
        (Method::GET, "/jobs/%00", 404, "job-not-found"),
        (Method::GET, "/jobs/%FF", 400, "malformed"),
        (Method::POST, "/jobs/x/retry", 404, "job-not-found"),
        (Method::POST, "/jobs/x/explode", 400, "malformed"),
        (Method::GET, "/queues/nowhere/jobs", 404, "queue-not-found"),
        (Method::GET, "/queues/%00/jobs", 404, "queue-not-found"),
        (
            Method::POST,
            "/queues/nowhere/pause",
            404,
            "queue-not-found",
        ),
        (
            Method::GET,
            "/queues/expire-bookings/jobs?state=bored",
            400,
            "malformed",
        ),
        (
            Method::GET,
            "/queues/expire-bookings/jobs?limit=0",
            422,
            "invalid",
        ),
        (
            Method::GET,
            "/queues/expire-bookings/jobs?after=%00",
            400,
            "malformed",
        ),
        (
            Method::GET,
            "/queues/expire-bookings/jobs?after=1-x",
            400,
            "malformed",
        ),
        (
            Method::GET,
            "/queues/expire-bookings/jobs?state=dead&after=x",
            400,
            "malformed",
        ),
        (
            Method::POST,
            "/queues/expire-bookings/jobs/retry",
            400,
            "malformed",
        ),
        (
            Method::POST,
            "/queues/expire-bookings/jobs/retry?state=done",
            400,
            "malformed",
        ),
        // The action would change more jobs than the page that the user saw.
        (
            Method::POST,
            "/queues/expire-bookings/jobs/run?state=scheduled&limit=1",
            400,
            "malformed",
        ),
        (
            Method::GET,
            "/queues/expire-bookings/jobs/count?limit=1",
            400,
            "malformed",
        ),
        (Method::GET, "/bookings/77", 404, "booking-not-found"),
        (Method::GET, "/bookings/x", 400, "malformed"),
        (Method::GET, "/overview?since=yesterday", 400, "malformed"),
    ] {
        let (found, problem) = ask(&api, method.clone(), path).await;
        assert_eq!(found.as_u16(), status, "{method} {path}: {problem}");
        assert_eq!(
            problem["type"],
            format!("/problems/{kind}"),
            "{method} {path}"
        );
    }
    assert_eq!(
        get(&api, "/interventions").await,
        json!([]),
        "no action was recorded"
    );
}

/// An open transaction keeps dead rows from being removed.
#[tokio::test]
async fn a_transaction_that_somebody_left_open_is_named() {
    let api = Api::start().await;
    let mut left_open = api.db.pool.begin().await.unwrap();
    let session: i32 = sqlx::query_scalar("SELECT pg_backend_pid() FROM pg_current_xact_id()")
        .fetch_one(&mut *left_open)
        .await
        .unwrap();
    let named = format!("session {session}, role postgres");
    eventually("the transaction is named", async || {
        let oldest = &get(&api, "/overview").await["now"]["oldestTransaction"];
        oldest["seconds"].as_f64() > Some(0.0)
            && oldest["holder"]
                .as_str()
                .is_some_and(|holder| holder.starts_with(&named))
    })
    .await;
    left_open.rollback().await.unwrap();
    eventually("the transaction is gone", async || {
        let oldest = &get(&api, "/overview").await["now"]["oldestTransaction"];
        !oldest.to_string().contains(&named)
    })
    .await;
}

/// The metrics are shared by all tests in this process, so they are compared before and after.
#[tokio::test]
async fn figures_tell_of_requests_bookings_and_the_queue() {
    let api = Api::start().await;
    let reserved = "ticketing_bookings_total{outcome=\"reserved\"}";
    let refused = "ticketing_refusals_total{problem=\"not-enough-seats\"}";
    let answered = "ticketing_http_requests_total{method=\"POST\",route=\"/bookings/{id}/confirm\",status=\"200\"}";
    let elsewhere =
        "ticketing_http_requests_total{method=\"other\",route=\"other\",status=\"404\"}";
    let late = "ticketing_expiry_lag_seconds_count";
    let names = [reserved, refused, answered, elsewhere, late];
    let mut before = Vec::new();
    for name in names {
        before.push(figure(&api, name).await.unwrap_or(0.0));
    }
    api.post("/shows", &the_show()).await;
    api.post("/bookings", &alice(30)).await;
    api.post("/bookings", &alice(20)).await;
    api.post("/bookings", &alice(10)).await;
    let_pass(&api.db.pool, 200).await;
    api.post("/bookings", &alice(40)).await;
    api.post("/bookings/3/confirm", &Value::Null).await;
    api.request("BREW".parse().unwrap(), "/tea")
        .send()
        .await
        .unwrap();
    // The holds of 30 and of 10 seats had expired when the last booking was made.
    for (name, (before, more)) in names
        .into_iter()
        .zip(before.into_iter().zip([3.0, 1.0, 1.0, 1.0, 2.0]))
    {
        let now = figure(&api, name).await.unwrap_or(0.0);
        assert!(now >= before + more, "{name}: {before}, {now}");
    }
    let due = "ticketing_queue_jobs{queue=\"expire-bookings\",state=\"due\"}";
    eventually("jobs are counted", async || {
        figure(&api, due).await == Some(2.0)
    })
    .await;
    assert!(
        figure(
            &api,
            "ticketing_queue_due_lag_seconds{queue=\"expire-bookings\"}"
        )
        .await
            > Some(70.0)
    );
    assert_eq!(
        figure(
            &api,
            "ticketing_database_connections{pool=\"api\",state=\"max\"}"
        )
        .await,
        Some(16.0)
    );
}

#[tokio::test]
async fn it_needs_the_scope_admin_where_keys_are_asked_for() {
    let api = Api::start_with(|config| config.callers.require_keys = true).await;
    let make = async |name: &str, scope| {
        let new = NewApiKey {
            name,
            scopes: &[scope],
            requests_per_second: None,
        };
        api_key::create(&api.db.pool, &new).await.unwrap().reveal()
    };
    let (seller, operator) = (
        make("seller", Scope::BookingsWrite).await,
        make("operator", Scope::Admin).await,
    );
    let ask = async |path: &str, key: &str| {
        let request = api
            .client
            .get(format!("{}{path}", api.admin))
            .bearer_auth(key);
        request.send().await.unwrap().status()
    };
    eventually("the keys are known", async || {
        ask("/queues", &operator).await == StatusCode::OK
    })
    .await;
    for path in [
        "/metrics",
        "/overview",
        "/sales",
        "/queues",
        "/queues/expire-bookings/jobs",
        "/jobs/x",
        "/bookings/1",
        "/workers",
        "/interventions",
        "/database",
        "/audit",
    ] {
        assert_eq!(
            get_status(&api, path).await,
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
        assert_eq!(ask(path, &seller).await, StatusCode::FORBIDDEN, "{path}");
        assert_ne!(
            ask(path, &operator).await,
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
    }
    for path in [
        "/audit",
        "/jobs/x/retry",
        "/queues/expire-bookings/pause",
        "/queues/expire-bookings/resume",
        "/queues/expire-bookings/jobs/run",
    ] {
        let request = api
            .client
            .post(format!("{}{path}", api.admin))
            .bearer_auth(&seller);
        assert_eq!(
            request.send().await.unwrap().status(),
            StatusCode::FORBIDDEN,
            "{path}"
        );
    }
    // The page itself contains no data; it asks the user for the key.
    assert_eq!(get_status(&api, "/").await, StatusCode::OK);
}

async fn get_status(api: &Api, path: &str) -> StatusCode {
    api.client
        .get(format!("{}{path}", api.admin))
        .send()
        .await
        .unwrap()
        .status()
}

#[tokio::test]
async fn on_other_addresses_it_is_never_open() {
    let api = Api::start().await;
    let config = server::config(|config| {
        config.insecure = true;
        config.admin_listen = Some("0.0.0.0:0".parse().unwrap());
    });
    let listeners = api::bind(&config).unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let refused = api::serve(
        listeners,
        server::own_connections(&api).await,
        &config,
        stop,
    )
    .await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("--scope admin"), "{refused}");
}

#[tokio::test]
async fn the_last_look_stays_while_the_database_is_away() {
    let api = that_sold().await;
    eventually("a poll has seen both bookings", async || {
        get(&api, "/overview").await["now"]["newestBooking"] == 2
    })
    .await;
    execute(&api.db.pool, "ALTER TABLE bookings RENAME TO away").await;
    eventually("the failure is reported", async || {
        !get(&api, "/overview").await["failure"].is_null()
    })
    .await;
    assert_eq!(get(&api, "/overview").await["now"]["newestBooking"], 2);
    let (status, problem) = ask(&api, Method::GET, "/sales").await;
    assert_eq!(
        (status.as_u16(), &problem["type"]),
        (503, &json!("/problems/not-ready")),
        "a table is missing"
    );
    execute(&api.db.pool, "ALTER TABLE away RENAME TO bookings").await;
    eventually("polls succeed again", async || {
        get(&api, "/overview").await["failure"].is_null()
    })
    .await;
}
