//! Shows that change: edited, paused, resumed, archived, and on sale in a window of time.

mod server;

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testing::{assert_seats_conserved, execute, until_one_waits_for_a_lock};
use tokio::task::JoinSet;

use crate::server::{Api, alice, parse, the_show};

async fn patch(api: &Api, if_match: Option<&str>, body: &Value) -> (StatusCode, Value) {
    let mut request = api.request(Method::PATCH, "/shows/1").json(body);
    if let Some(tag) = if_match {
        request = request.header("if-match", tag);
    }
    parse(request.send().await.unwrap()).await
}

async fn post(api: &Api, path: &str) -> (StatusCode, Value) {
    parse(api.request(Method::POST, path).send().await.unwrap()).await
}

async fn etag(api: &Api) -> String {
    let show = api.request(Method::GET, "/shows/1").send().await.unwrap();
    show.headers()["etag"].to_str().unwrap().to_owned()
}

/// Asserts that the answer is this problem, with these members.
fn assert_problem((status, body): (StatusCode, Value), code: u16, kind: &str, members: &Value) {
    assert_eq!(status.as_u16(), code, "{body}");
    assert_eq!(body["type"], format!("/problems/{kind}"), "{body}");
    for (name, value) in members.as_object().unwrap() {
        assert_eq!(&body[name], value, "{name} of {body}");
    }
}

#[tokio::test]
async fn a_change_sets_the_given_fields_and_leaves_the_others() {
    let api = Api::start().await;
    let (_, before) = api.post("/shows", &the_show()).await;
    let changes = [
        ("name", json!("Evening Show")),
        ("startTime", json!("2027-01-02T19:30:00Z")),
        ("seats", json!(50)),
        ("holdSeconds", json!(60)),
        ("maxHoldSeconds", json!(600)),
        ("maxSeatsPerBooking", json!(8)),
        ("salesStart", json!("2026-01-01T00:00:00Z")),
        ("salesEnd", json!("2030-01-01T00:00:00Z")),
        ("salesEnd", json!(null)),
        ("salesStart", json!(null)),
    ];
    let mut expected = before;
    for (field, value) in changes {
        let (status, after) = patch(&api, Some("*"), &json!({ field: value })).await;
        assert_eq!(status, StatusCode::OK, "{after}");
        expected[field] = value;
        if field == "seats" {
            expected["availableSeats"] = json!(50);
        }
        assert_eq!(after, expected, "{field}");
        assert_eq!(api.get("/shows/1").await.1, expected, "{field}");
    }
}

#[tokio::test]
async fn a_change_needs_the_version_that_it_changes_but_sales_are_no_change() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    let first = etag(&api).await;
    let rename = |name: &str| json!({ "name": name });
    let refused = patch(&api, None, &rename("A")).await;
    assert_problem(refused, 428, "if-match-required", &json!({}));

    api.post("/bookings", &alice(3)).await;
    assert_ne!(etag(&api).await, first, "a reader sees what was sold");
    assert_eq!(
        patch(&api, Some(&first), &rename("A")).await.0,
        StatusCode::OK
    );
    let refused = patch(&api, Some(&first), &rename("B")).await;
    assert_problem(refused, 412, "show-changed", &json!({ "showId": 1 }));
    let second = etag(&api).await;
    assert_eq!(
        patch(&api, Some(&second), &rename("A")).await.0,
        StatusCode::OK
    );
    assert_eq!(etag(&api).await, second, "nothing was changed");
    assert_eq!(api.get("/shows/1").await.1["name"], "A");
}

#[tokio::test]
async fn seats_are_taken_only_while_the_show_is_on_sale() {
    let api = Api::start().await;
    let mut show = the_show();
    show["salesStart"] = json!("2900-01-01T00:00:00Z");
    api.post("/shows", &show).await;
    let not_on_sale = |status: &str, start: Value, end: Value| json!({ "showId": 1, "showStatus": status, "salesStart": start, "salesEnd": end });
    let book = || async { api.post("/bookings", &alice(1)).await };
    let refused = |members: Value| {
        let answer = book();
        async move { assert_problem(answer.await, 409, "not-on-sale", &members) }
    };
    refused(not_on_sale(
        "ON_SALE",
        json!("2900-01-01T00:00:00Z"),
        json!(null),
    ))
    .await;

    // The database's clock decides, and nothing else need happen at that instant.
    execute(
        &api.db.pool,
        "UPDATE shows SET sales_start = clock_timestamp()",
    )
    .await;
    let (status, held) = book().await;
    assert_eq!(status, StatusCode::CREATED, "{held}");
    execute(
        &api.db.pool,
        "UPDATE shows SET sales_start = NULL, sales_end = '2026-01-01 00:00:00Z'",
    )
    .await;
    refused(not_on_sale(
        "ON_SALE",
        json!(null),
        json!("2026-01-01T00:00:00Z"),
    ))
    .await;
    patch(&api, Some("*"), &json!({ "salesEnd": null })).await;

    for _ in 0..2 {
        assert_eq!(post(&api, "/shows/1/pause").await.1["status"], "PAUSED");
    }
    refused(not_on_sale("PAUSED", json!(null), json!(null))).await;
    let id = &held["id"];
    let (path, body) = (format!("/bookings/{id}/extend"), json!({ "seconds": 200 }));
    assert_eq!(api.post(&path, &body).await.0, StatusCode::OK);
    assert_eq!(
        post(&api, &format!("/bookings/{id}/confirm")).await.0,
        StatusCode::OK
    );
    assert_eq!(
        post(&api, &format!("/bookings/{id}/cancel")).await.0,
        StatusCode::OK
    );
    for _ in 0..2 {
        assert_eq!(post(&api, "/shows/1/resume").await.1["status"], "ON_SALE");
    }
    assert_eq!(book().await.0, StatusCode::CREATED);

    for _ in 0..2 {
        assert_eq!(post(&api, "/shows/1/archive").await.1["status"], "ARCHIVED");
    }
    refused(not_on_sale("ARCHIVED", json!(null), json!(null))).await;
    for change in ["pause", "resume"] {
        let answer = post(&api, &format!("/shows/1/{change}")).await;
        let members = json!({ "showId": 1, "currentStatus": "ARCHIVED" });
        assert_problem(answer, 409, "wrong-show-status", &members);
    }
    assert_seats_conserved(&api.db.pool).await;
}

#[tokio::test]
async fn a_draft_is_not_on_sale_until_it_is_resumed() {
    let api = Api::start().await;
    let mut show = the_show();
    show["status"] = json!("DRAFT");
    let (status, made) = api.post("/shows", &show).await;
    assert_eq!(
        (status, &made["status"]),
        (StatusCode::CREATED, &json!("DRAFT"))
    );
    let members = json!({ "showStatus": "DRAFT" });
    assert_problem(
        api.post("/bookings", &alice(1)).await,
        409,
        "not-on-sale",
        &members,
    );
    let refused = post(&api, "/shows/1/pause").await;
    assert_problem(
        refused,
        409,
        "wrong-show-status",
        &json!({ "currentStatus": "DRAFT" }),
    );
    post(&api, "/shows/1/resume").await;
    assert_eq!(
        api.post("/bookings", &alice(1)).await.0,
        StatusCode::CREATED
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_reaches_requests_that_already_wait_for_the_show() {
    let api = Arc::new(Api::start().await);
    api.post("/shows", &the_show()).await;
    let mut pausing = api.db.pool.begin().await.unwrap();
    sqlx::query(
        "UPDATE shows SET sale_status = 'PAUSED', revision = revision + 1, edition = edition + 1",
    )
    .execute(&mut *pausing)
    .await
    .unwrap();
    let mut buyers = JoinSet::new();
    for _ in 0..20 {
        let api = api.clone();
        buyers.spawn(async move { api.post("/bookings", &alice(1)).await });
    }
    until_one_waits_for_a_lock(&api.db.pool).await;
    pausing.commit().await.unwrap();
    for answer in buyers.join_all().await {
        assert_problem(
            answer,
            409,
            "not-on-sale",
            &json!({ "showStatus": "PAUSED" }),
        );
    }
}

#[tokio::test]
async fn a_show_never_has_fewer_seats_than_are_in_use() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    api.post("/bookings", &alice(12)).await;
    let refused = patch(&api, Some("*"), &json!({ "seats": 11 })).await;
    let members = json!({ "showId": 1, "requested": 11, "inUse": 12 });
    assert_problem(refused, 409, "seats-in-use", &members);
    let (_, show) = patch(&api, Some("*"), &json!({ "seats": 12 })).await;
    assert_eq!(
        (&show["seats"], &show["availableSeats"]),
        (&json!(12), &json!(0))
    );
    // Seats of holds that have run out are not in use, though no worker failed them.
    testing::let_pass(&api.db.pool, 121).await;
    let (status, show) = patch(&api, Some("*"), &json!({ "seats": 5 })).await;
    assert_eq!(status, StatusCode::OK, "{show}");
    assert_eq!(
        (&show["seats"], &show["availableSeats"]),
        (&json!(5), &json!(5))
    );
    assert_seats_conserved(&api.db.pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seats_are_lowered_while_200_buyers_race() {
    let api = Arc::new(Api::start_with(|config| config.queue_max = 1000).await);
    let mut show = the_show();
    show["seats"] = json!(150);
    api.post("/shows", &show).await;
    let mut buyers = JoinSet::new();
    for _ in 0..200 {
        let api = api.clone();
        buyers.spawn(async move { api.post("/bookings", &alice(1)).await.0 });
    }
    let (status, answer) = patch(&api, Some("*"), &json!({ "seats": 100 })).await;
    let answers = buyers.join_all().await;
    let sold = answers
        .iter()
        .filter(|answer| **answer == StatusCode::CREATED)
        .count();
    match status {
        StatusCode::OK => assert_eq!(sold, 100),
        _ => {
            assert_problem(
                (status, answer),
                409,
                "seats-in-use",
                &json!({ "requested": 100 }),
            );
            assert_eq!(sold, 150);
        }
    }
    assert_seats_conserved(&api.db.pool).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_change_is_named_and_nothing_changes() {
    let api = Api::start().await;
    let (_, before) = api.post("/shows", &the_show()).await;
    let too_long = "x".repeat(201);
    for (body, pointer) in [
        (json!({ "name": null }), "/name"),
        (json!({ "name": too_long }), "/name"),
        (json!({ "startTime": null }), "/startTime"),
        (json!({ "startTime": "tomorrow" }), "/startTime"),
        (json!({ "seats": 0 }), "/seats"),
        (json!({ "seats": null }), "/seats"),
        (json!({ "seats": 1_000_001 }), "/seats"),
        (json!({ "holdSeconds": 9 }), "/holdSeconds"),
        (json!({ "holdSeconds": 901 }), "/maxHoldSeconds"),
        (json!({ "maxHoldSeconds": 119 }), "/maxHoldSeconds"),
        (json!({ "maxSeatsPerBooking": 1001 }), "/maxSeatsPerBooking"),
        (json!({ "salesStart": 5 }), "/salesStart"),
        (
            json!({ "salesStart": "2026-01-02T00:00:00Z", "salesEnd": "2026-01-02T00:00:00Z" }),
            "/salesEnd",
        ),
        (json!({ "status": "PAUSED" }), "/status"),
    ] {
        let (status, answer) = patch(&api, Some("*"), &body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {answer}");
        assert_eq!(answer["errors"][0]["pointer"], pointer, "{body}: {answer}");
    }
    for body in [
        json!({ "status": "PAUSED" }),
        json!({ "salesStart": "2026-01-02T00:00:00Z", "salesEnd": "2026-01-01T00:00:00Z" }),
    ] {
        let mut show = the_show();
        show.as_object_mut()
            .unwrap()
            .extend(body.as_object().unwrap().clone());
        assert_eq!(
            api.post("/shows", &show).await.0,
            StatusCode::UNPROCESSABLE_ENTITY
        );
    }
    assert_eq!(api.get("/shows/1").await.1, before);
    let missing = api
        .request(Method::PATCH, "/shows/2")
        .header("if-match", "*")
        .json(&json!({}));
    let answer = parse(missing.send().await.unwrap()).await;
    assert_problem(answer, 404, "show-not-found", &json!({ "showId": 2 }));
}
