//! Shows that change: edited, paused, resumed, archived, and on sale in a window of time.

mod server;

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::{
    audit::audit,
    booking::cancel_show::{Outcome, cancel_bookings_of},
};
use testing::{assert_seats_conserved, count, execute, let_pass, until_one_waits_for_a_lock};
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
        ("maxSeatsPerUser", json!(6)),
        ("reference", json!("hall 2")),
        ("metadata", json!({ "b": [1, { "c": null }], "a": 2.5 })),
        ("salesStart", json!("2026-01-01T00:00:00Z")),
        ("salesEnd", json!("2030-01-01T00:00:00Z")),
        ("salesEnd", json!(null)),
        ("salesStart", json!(null)),
        ("maxSeatsPerUser", json!(null)),
        ("reference", json!(null)),
        ("metadata", json!(null)),
    ];
    let mut expected = before;
    for (field, value) in changes {
        let (status, after) = patch(&api, Some("*"), &json!({ field: value })).await;
        assert_eq!(status, StatusCode::OK, "{after}");
        if value.is_null() && ["reference", "metadata"].contains(&field) {
            expected.as_object_mut().unwrap().remove(field);
        } else {
            expected[field] = value;
        }
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
    let_pass(&api.db.pool, 121).await;
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
        (json!({ "maxSeatsPerUser": 0 }), "/maxSeatsPerUser"),
        (json!({ "reference": "" }), "/reference"),
        (
            json!({ "metadata": { "a": "x".repeat(3000) } }),
            "/metadata",
        ),
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

async fn book(api: &Api, user: &str, seats: i64) -> (StatusCode, Value) {
    let body = json!({ "showId": 1, "userName": user, "numberOfSeats": seats });
    api.post("/bookings", &body).await
}

async fn assert_audited(api: &Api) {
    let audit = audit(&api.db.database, std::time::Duration::from_hours(1));
    let audit = audit.await.unwrap();
    assert!(audit.passes(), "{:?}", audit.invariants);
}

#[tokio::test]
async fn the_limit_of_a_user_is_not_dodged_by_another_spelling() {
    let api = Api::start().await;
    let mut show = the_show();
    show["maxSeatsPerUser"] = json!(4);
    api.post("/shows", &show).await;
    assert_eq!(book(&api, "Alice Smith", 3).await.0, StatusCode::CREATED);
    for name in [
        "Alice Smith",
        "alice smith",
        "ALICE  SMITH",
        " Alice Smith",
        "Alice-Smith",
        "\u{410}lice Smith",
        "Alic\u{e9} Smith",
        "Ａｌｉｃｅ Smith",
    ] {
        let refused = book(&api, name, 2).await;
        let members = json!({ "requested": 2, "maxSeatsPerUser": 4, "taken": 3 });
        assert_problem(refused, 409, "user-limit-reached", &members);
    }
    // Together in one transaction, too.
    let body = |name: &str| json!({ "showId": 1, "userName": name, "numberOfSeats": 3 });
    let bulk = json!({ "bookings": [body("Bob"), body("BOB"), body("Bo b"), body("Rob")] });
    let (_, results) = api.post("/bookings/bulk", &bulk).await;
    let statuses: Vec<&Value> = (0..4).map(|n| &results["results"][n]["status"]).collect();
    assert_eq!(statuses, [201, 409, 409, 201], "{results}");
    let (_, booking) = book(&api, "ALICE SMITH", 1).await;
    assert_eq!(booking["userName"], "ALICE SMITH", "it is kept as written");
    assert_audited(&api).await;
    // The audit sees who has too many.
    execute(
        &api.db.pool,
        "UPDATE bookings SET number_of_seats = 4 WHERE user_name = 'ALICE SMITH'",
    )
    .await;
    let audit = audit(&api.db.database, std::time::Duration::from_hours(1));
    let audit = audit.await.unwrap();
    let broken = audit
        .invariants
        .iter()
        .find(|found| found.name.contains("no user got more"));
    assert_eq!(broken.unwrap().broken, 1);
}

#[tokio::test]
async fn the_limit_of_a_user_changes_for_what_is_booked_from_then_on() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    let limit = async |limit: Value| {
        let (status, show) = patch(&api, Some("*"), &json!({ "maxSeatsPerUser": limit })).await;
        assert_eq!((status, &show["maxSeatsPerUser"]), (StatusCode::OK, &limit));
        assert_audited(&api).await;
    };
    assert_eq!(book(&api, "Alice", 5).await.0, StatusCode::CREATED);
    limit(json!(4)).await;
    // What was booked without a limit does not count.
    assert_eq!(book(&api, "Alice", 4).await.0, StatusCode::CREATED);
    assert_eq!(book(&api, "Alice", 1).await.0, StatusCode::CONFLICT);
    limit(json!(2)).await;
    let refused = book(&api, "alice", 1).await;
    assert_problem(refused, 409, "user-limit-reached", &json!({ "taken": 4 }));
    limit(json!(6)).await;
    assert_eq!(book(&api, "alice", 2).await.0, StatusCode::CREATED);
    limit(json!(null)).await;
    assert_eq!(book(&api, "alice", 10).await.0, StatusCode::CREATED);
    limit(json!(5)).await;
    assert_eq!(book(&api, "alice", 1).await.0, StatusCode::CONFLICT);
    assert_eq!(book(&api, "Bob", 5).await.0, StatusCode::CREATED);
    assert_audited(&api).await;
}

/// Programs of the version before write no comparable form of a name.
#[tokio::test]
async fn bookings_of_an_older_program_count_as_they_are_written() {
    let api = Api::start().await;
    let mut show = the_show();
    show["maxSeatsPerUser"] = json!(4);
    api.post("/shows", &show).await;
    book(&api, "Alice", 3).await;
    execute(&api.db.pool, "UPDATE bookings SET counted_as = NULL").await;
    let refused = book(&api, "Alice", 2).await;
    assert_problem(refused, 409, "user-limit-reached", &json!({ "taken": 3 }));
    assert_eq!(book(&api, "Alice", 1).await.0, StatusCode::CREATED);
    let refused = book(&api, "Alice", 1).await;
    assert_problem(refused, 409, "user-limit-reached", &json!({ "taken": 4 }));
}

#[tokio::test]
async fn a_cancelled_show_has_its_bookings_cancelled() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    for (seats, action) in [(3, "confirm"), (2, "extend"), (4, "cancel"), (1, "nothing")] {
        let (_, booking) = book(&api, "Alice", seats).await;
        let body = match action {
            "extend" => json!({ "seconds": 600 }),
            _ => json!({}),
        };
        if action != "nothing" {
            let path = format!("/bookings/{}/{action}", booking["id"]);
            assert_eq!(api.post(&path, &body).await.0, StatusCode::OK);
        }
    }
    let (status, preview) = post(&api, "/shows/1/cancel?dryRun=true").await;
    let expected = json!({ "pendingBookings": 2, "confirmedBookings": 1, "seats": 6 });
    assert_eq!((status, preview), (StatusCode::OK, expected));
    assert_eq!(api.get("/shows/1").await.1["status"], "ON_SALE");

    for _ in 0..2 {
        let (status, show) = post(&api, "/shows/1/cancel").await;
        assert_eq!(status, StatusCode::ACCEPTED, "{show}");
        assert_eq!(show["status"], "CANCELLED");
        assert_eq!(show["cancellation"]["seats"], 6);
        assert_eq!(show["cancellation"]["remainingSeats"], 6);
    }
    let jobs = "SELECT count(*) FROM apalis.jobs WHERE job_type = 'cancel-show'";
    assert_eq!(count(&api.db.pool, jobs).await, 1);
    assert_audited(&api).await;
    assert_problem(
        book(&api, "Alice", 1).await,
        409,
        "not-on-sale",
        &json!({ "showStatus": "CANCELLED" }),
    );
    let give = json!({ "from": 1, "userName": "Bob" });
    let refused = api.post("/bookings", &give).await;
    assert_problem(
        refused,
        409,
        "not-on-sale",
        &json!({ "showStatus": "CANCELLED" }),
    );
    for change in ["pause", "resume", "archive"] {
        let refused = post(&api, &format!("/shows/1/{change}")).await;
        let members = json!({ "currentStatus": "CANCELLED" });
        assert_problem(refused, 409, "wrong-show-status", &members);
    }
    // One hold runs out before the job runs.
    let_pass(&api.db.pool, 125).await;
    for ended in [3, 0] {
        let done = cancel_bookings_of(&mut api.db.session(), 1.into()).await;
        let expected = Outcome {
            ended,
            again_at: None,
        };
        assert_eq!(done.unwrap(), expected);
        let (_, show) = api.get("/shows/1").await;
        assert_eq!(show["cancellation"]["remainingSeats"], 0, "{show}");
        assert_eq!(show["availableSeats"], 40);
    }
    let statuses: Vec<Value> = api.get("/bookings").await.1.as_array().unwrap().clone();
    let statuses: Vec<&Value> = statuses.iter().map(|booking| &booking["status"]).collect();
    assert_eq!(statuses, ["CANCELLED", "CANCELLED", "CANCELLED", "FAILED"]);
    assert_audited(&api).await;
    // The audit sees a booking that nobody will cancel.
    execute(&api.db.pool, "DELETE FROM apalis.jobs").await;
    execute(
        &api.db.pool,
        "UPDATE bookings SET status = 'CONFIRMED' WHERE id = 1",
    )
    .await;
    let audit = audit(&api.db.database, std::time::Duration::from_hours(1));
    let broken = audit.await.unwrap().invariants;
    let broken = broken
        .iter()
        .find(|found| found.name.contains("cancelled show"));
    assert_eq!(broken.unwrap().broken, 1);
}

/// The job may run for a show that nobody cancelled: its payload is data.
#[tokio::test]
async fn only_a_cancelled_show_loses_its_bookings() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    book(&api, "Alice", 3).await;
    for show in [1, 2] {
        let done = cancel_bookings_of(&mut api.db.session(), show.into()).await;
        assert_eq!(done.unwrap(), Outcome::default());
    }
    assert_eq!(api.available_seats(1).await, 37);
}

#[tokio::test]
async fn shows_are_listed_by_start_time_status_name_and_reference() {
    let api = Api::start().await;
    for (name, day, reference) in [
        ("Hamlet", 5, Some("a")),
        ("Faust", 3, None),
        ("Hamlet", 1, Some("a")),
        ("Hamlet", 3, Some("b")),
        ("Faust", 9, Some("a")),
    ] {
        let mut show = the_show();
        show["name"] = json!(name);
        show["startTime"] = json!(format!("2027-01-0{day}T20:00:00Z"));
        if let Some(reference) = reference {
            show["reference"] = json!(reference);
        }
        assert_eq!(api.post("/shows", &show).await.0, StatusCode::CREATED);
    }
    post(&api, "/shows/2/pause").await;
    let ids = async |query: &str| -> Vec<i64> {
        // Pages of two, by way of the links.
        let mut path = format!("/shows?limit=2&{query}");
        let mut ids = Vec::new();
        loop {
            let response = api.request(Method::GET, &path).send().await.unwrap();
            let link = response.headers().get("link").cloned();
            let (status, page) = parse(response).await;
            assert_eq!(status, StatusCode::OK, "{path}: {page}");
            let page = page.as_array().unwrap();
            ids.extend(page.iter().map(|show| show["id"].as_i64().unwrap()));
            match link {
                None => return ids,
                Some(link) => {
                    let link = link.to_str().unwrap();
                    path = link.split(['<', '>']).nth(1).unwrap().to_owned();
                }
            }
        }
    };
    assert_eq!(ids("").await, [1, 2, 3, 4, 5]);
    assert_eq!(ids("order=startTime").await, [3, 2, 4, 1, 5]);
    assert_eq!(
        ids("startsAfter=2027-01-03T20:00:00Z&startsBefore=2027-01-09T20:00:00Z").await,
        [2, 4, 1]
    );
    assert_eq!(ids("name=Hamlet").await, [1, 3, 4]);
    assert_eq!(ids("name=Hamlet&order=startTime").await, [3, 4, 1]);
    assert_eq!(ids("reference=a&order=startTime").await, [3, 1, 5]);
    assert_eq!(ids("reference=a&name=Faust").await, [5]);
    assert_eq!(ids("status=PAUSED").await, [2]);
    assert_eq!(ids("status=ON_SALE&order=startTime").await, [3, 4, 1, 5]);
    assert_eq!(ids("name=hamlet").await, [0; 0]);
    for (query, kind) in [
        ("order=name", "malformed"),
        ("order=id&startsAfter=2027-01-03T20:00:00Z", "invalid"),
        ("status=SOLD", "malformed"),
        ("startsAfter=soon", "malformed"),
        ("name=", "invalid"),
        ("after=5-7", "malformed"),
        ("order=startTime&after=7", "malformed"),
        ("order=startTime&after=9223372036854775807-7", "malformed"),
        ("after=-7", "malformed"),
        ("after=x", "malformed"),
    ] {
        let (status, answer) = api.get(&format!("/shows?{query}")).await;
        assert!(status.is_client_error(), "{query}: {answer}");
        assert_eq!(
            answer["type"],
            format!("/problems/{kind}"),
            "{query}: {answer}"
        );
    }
}
