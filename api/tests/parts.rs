//! Bookings in parts: some of their seats cancelled, confirmed or passed on; and references and
//! metadata, which clients keep with them.

mod server;

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use shared::{audit::audit, booking::expire};
use testing::{assert_seats_conserved, count, execute, job, let_pass};
use tokio::task::JoinSet;

use crate::server::{Api, alice, parse, the_show};

/// Starts an api with the show 1, of 40 seats.
async fn with_a_show() -> Api {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    api
}

/// Books seats of show 1, and returns the path of the booking.
async fn book(api: &Api, seats: i64) -> String {
    let (status, booking) = api.post("/bookings", &alice(seats)).await;
    assert_eq!(status, StatusCode::CREATED, "{booking}");
    format!("/bookings/{}", booking["id"])
}

async fn part(api: &Api, path: &str, action: &str, seats: i64) -> (StatusCode, Value) {
    let body = json!({ "numberOfSeats": seats });
    api.post(&format!("{path}/{action}"), &body).await
}

async fn keyed(api: &Api, path: &str, key: &str, body: &Value) -> (StatusCode, Value) {
    let request = api.request(Method::POST, path).json(body);
    parse(request.header("idempotency-key", key).send().await.unwrap()).await
}

/// Asserts that the answer is this problem, with these members.
fn assert_problem((status, body): (StatusCode, Value), code: u16, kind: &str, members: &Value) {
    assert_eq!(status.as_u16(), code, "{body}");
    assert_eq!(body["type"], format!("/problems/{kind}"), "{body}");
    for (name, value) in members.as_object().unwrap() {
        assert_eq!(&body[name], value, "{name} of {body}");
    }
}

/// Asserts that a booking has this status, these seats, and has released these.
fn assert_booking(booking: &Value, status: &str, seats: i64, released: Option<i64>) {
    let is = (&booking["status"], &booking["numberOfSeats"]);
    assert_eq!(is, (&json!(status), &json!(seats)), "{booking}");
    let expected = released.map_or(Value::Null, Value::from);
    assert_eq!(booking["releasedSeats"], expected, "{booking}");
}

async fn assert_audited(api: &Api) {
    assert_seats_conserved(&api.db.pool).await;
    let audit = audit(&api.db.database, std::time::Duration::from_hours(1));
    let audit = audit.await.unwrap();
    assert!(audit.passes(), "{:?}", audit.invariants);
}

#[tokio::test]
async fn seats_of_a_booking_are_cancelled_one_part_after_the_other() {
    let api = with_a_show().await;
    let path = book(&api, 5).await;
    let (status, booking) = part(&api, &path, "cancel", 2).await;
    assert_eq!(status, StatusCode::OK, "{booking}");
    assert_booking(&booking, "PENDING", 3, Some(2));
    assert_eq!(api.available_seats(1).await, 37);
    api.post(&format!("{path}/confirm"), &json!({})).await;
    let (_, booking) = part(&api, &path, "cancel", 1).await;
    assert_booking(&booking, "CONFIRMED", 2, Some(3));
    assert_eq!(api.available_seats(1).await, 38);

    let refused = part(&api, &path, "cancel", 3).await;
    let members = json!({ "bookingId": 1, "requested": 3, "booked": 2 });
    assert_problem(refused, 409, "fewer-seats-booked", &members);
    let (_, booking) = part(&api, &path, "cancel", 2).await;
    assert_booking(&booking, "CANCELLED", 2, Some(3));
    assert_eq!(api.available_seats(1).await, 40);
    let refused = part(&api, &path, "cancel", 1).await;
    assert_problem(
        refused,
        409,
        "booking-cancelled",
        &json!({ "bookingId": 1 }),
    );
    assert_eq!(api.get(&path).await.1["releasedSeats"], 3);
    assert_audited(&api).await;
}

#[tokio::test]
async fn two_of_three_seats_are_confirmed_and_the_third_goes_back_on_sale() {
    let api = with_a_show().await;
    let path = book(&api, 3).await;
    for _ in 0..2 {
        let (status, booking) = part(&api, &path, "confirm", 2).await;
        assert_eq!(status, StatusCode::OK, "{booking}");
        assert_booking(&booking, "CONFIRMED", 2, Some(1));
        assert_eq!(api.available_seats(1).await, 38);
    }
    let refused = part(&api, &path, "confirm", 1).await;
    assert_problem(
        refused,
        409,
        "booking-confirmed",
        &json!({ "bookingId": 1 }),
    );
    let path = book(&api, 3).await;
    let refused = part(&api, &path, "confirm", 4).await;
    let members = json!({ "bookingId": 2, "requested": 4, "booked": 3 });
    assert_problem(refused, 409, "fewer-seats-booked", &members);
    assert_audited(&api).await;
}

#[tokio::test]
async fn what_is_left_of_a_hold_runs_out_and_comes_back_once() {
    let api = with_a_show().await;
    for (seats, extend) in [(5, false), (4, true)] {
        let path = book(&api, seats).await;
        if extend {
            let body = json!({ "seconds": 200 });
            let extended = api.post(&format!("{path}/extend"), &body).await;
            assert_eq!(extended.0, StatusCode::OK);
        }
        part(&api, &path, "cancel", 1).await;
    }
    assert_audited(&api).await;
    assert_eq!(api.available_seats(1).await, 33);
    let_pass(&api.db.pool, 205).await;
    let ids = [1.into(), 2.into()];
    for _ in 0..2 {
        expire::expire(&mut api.db.session(), &job(&ids))
            .await
            .unwrap();
        assert_eq!(api.available_seats(1).await, 40);
    }
    let (_, booking) = api.get("/bookings/1").await;
    assert_booking(&booking, "FAILED", 4, Some(1));
    assert_audited(&api).await;
}

#[tokio::test]
async fn a_partial_cancel_with_the_same_key_is_done_once() {
    let api = Arc::new(with_a_show().await);
    let path = format!("{}/cancel", book(&api, 6).await);
    let body = json!({ "numberOfSeats": 2 });
    let mut repeats = JoinSet::new();
    for _ in 0..20 {
        let (api, path, body) = (api.clone(), path.clone(), body.clone());
        repeats.spawn(async move { keyed(&api, &path, "a", &body).await });
    }
    for (status, booking) in repeats.join_all().await {
        assert_eq!(status, StatusCode::OK, "{booking}");
        assert_booking(&booking, "PENDING", 4, Some(2));
    }
    let (_, booking) = keyed(&api, &path, "b", &body).await;
    assert_booking(&booking, "PENDING", 2, Some(4));
    let (_, booking) = keyed(&api, &path, "a", &body).await;
    assert_booking(&booking, "PENDING", 2, Some(4));

    let other = keyed(&api, &path, "a", &json!({ "numberOfSeats": 1 })).await;
    assert_problem(other, 422, "idempotency-key-reused", &json!({}));
    let path = format!("{}/cancel", book(&api, 6).await);
    let other = keyed(&api, &path, "a", &body).await;
    assert_problem(other, 422, "idempotency-key-reused", &json!({}));
    // A refused request does not use up its key.
    let refused = keyed(&api, &path, "c", &json!({ "numberOfSeats": 7 })).await;
    assert_eq!(refused.0, StatusCode::CONFLICT);
    let (status, _) = keyed(&api, &path, "c", &body).await;
    assert_eq!(status, StatusCode::OK);
    assert_audited(&api).await;
}

#[tokio::test]
async fn a_partial_cancel_changes_the_version_of_the_booking() {
    let api = with_a_show().await;
    let path = book(&api, 5).await;
    let cancel = async |tag: &str| {
        let request = api.request(Method::POST, &format!("{path}/cancel"));
        let request = request.header("if-match", tag);
        let request = request.json(&json!({ "numberOfSeats": 1 }));
        let response = request.send().await.unwrap();
        let tag = response.headers().get("etag").cloned();
        (parse(response).await, tag)
    };
    let found = api.request(Method::GET, &path).send().await.unwrap();
    let first = found.headers()["etag"].to_str().unwrap().to_owned();
    let ((status, _), second) = cancel(&first).await;
    assert_eq!(status, StatusCode::OK);
    let (refused, _) = cancel(&first).await;
    assert_problem(refused, 412, "booking-changed", &json!({ "bookingId": 1 }));
    let ((status, booking), _) = cancel(second.unwrap().to_str().unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    assert_booking(&booking, "PENDING", 3, Some(2));
}

/// Requests that were valid before these had a body.
#[tokio::test]
async fn confirm_and_cancel_need_no_body() {
    let api = with_a_show().await;
    for (content_type, body) in [
        (None, ""),
        (Some("application/json"), ""),
        (Some("application/json"), "{}"),
        (Some("application/json"), " null "),
        (Some("application/json"), "{\"seconds\": 300}"),
        (Some("text/plain"), "numberOfSeats"),
        (Some("application/x-www-form-urlencoded"), "a=b"),
        (None, "{"),
    ] {
        let path = book(&api, 2).await;
        for (action, expected) in [("confirm", "CONFIRMED"), ("cancel", "CANCELLED")] {
            let mut request = api.request(Method::POST, &format!("{path}/{action}"));
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }
            let (status, booking) = parse(request.body(body).send().await.unwrap()).await;
            assert_eq!(status, StatusCode::OK, "{content_type:?} {body}: {booking}");
            assert_booking(&booking, expected, 2, None);
        }
    }
    let path = book(&api, 2).await;
    for body in [
        json!({ "numberOfSeats": 0 }),
        json!({ "numberOfSeats": 1001 }),
        json!({ "numberOfSeats": null }),
        json!({ "numberOfSeats": "1" }),
        json!([]),
        json!(1),
    ] {
        for action in ["confirm", "cancel"] {
            let refused = api.post(&format!("{path}/{action}"), &body).await;
            assert_problem(refused, 422, "invalid", &json!({}));
        }
    }
    assert_booking(&api.get(&path).await.1, "PENDING", 2, None);
}

#[tokio::test]
async fn seats_are_passed_on_to_another_user() {
    let api = with_a_show().await;
    let held = book(&api, 5).await;
    let sold = book(&api, 4).await;
    api.post(&format!("{sold}/confirm"), &json!({})).await;
    let body = json!({ "from": 1, "userName": "Bob", "numberOfSeats": 2, "reference": "gift" });
    let (status, bob) = keyed(&api, "/bookings", "gift", &body).await;
    assert_eq!(status, StatusCode::CREATED, "{bob}");
    assert_booking(&bob, "PENDING", 2, None);
    let (_, alice) = api.get(&held).await;
    assert_booking(&alice, "PENDING", 3, Some(2));
    for member in ["expiresAt", "extendableUntil", "createdAt", "showId"] {
        assert_eq!(bob[member], alice[member], "{member}");
    }
    assert_eq!(
        (&bob["from"], &bob["reference"]),
        (&json!(1), &json!("gift"))
    );
    let (status, again) = keyed(&api, "/bookings", "gift", &body).await;
    assert_eq!((status, &again["id"]), (StatusCode::CREATED, &bob["id"]));

    let all = json!({ "from": 2, "userName": "Carol" });
    let (status, carol) = api.post("/bookings", &all).await;
    assert_eq!(status, StatusCode::CREATED, "{carol}");
    assert_booking(&carol, "CONFIRMED", 4, None);
    assert_booking(&api.get(&sold).await.1, "CANCELLED", 4, None);
    let refused = api.post("/bookings", &all).await;
    assert_problem(
        refused,
        409,
        "booking-cancelled",
        &json!({ "bookingId": 2 }),
    );
    assert_eq!(api.available_seats(1).await, 31);
    let listed = api.get("/bookings?createdAfter=2020-01-01T00:00:00Z").await;
    assert_eq!(listed.1.as_array().unwrap().len(), 4);
    assert_audited(&api).await;

    // The new hold runs out by its own job.
    let_pass(&api.db.pool, 125).await;
    let expired = expire::expire(&mut api.db.session(), &job(&[3.into()])).await;
    assert!(expired.unwrap().expired.contains(&3.into()));
    let jobs =
        "SELECT count(*) FROM apalis.jobs, bookings_of_payload(job) AS booking WHERE booking = 3";
    assert_eq!(count(&api.db.pool, jobs).await, 1);
    assert_audited(&api).await;
}

#[tokio::test]
async fn seats_are_passed_on_only_if_the_booking_has_them_and_the_user_may() {
    let api = Api::start().await;
    let mut show = the_show();
    show["maxSeatsPerUser"] = json!(4);
    api.post("/shows", &show).await;
    book(&api, 4).await;
    let to =
        |user: &str, seats: i64| json!({ "from": 1, "userName": user, "numberOfSeats": seats });
    let refused = api.post("/bookings", &to("Bob", 5)).await;
    let members = json!({ "bookingId": 1, "requested": 5, "booked": 4 });
    assert_problem(refused, 409, "fewer-seats-booked", &members);
    let unknown = json!({ "from": 99, "userName": "Bob" });
    let members = json!({ "bookingId": 99 });
    assert_problem(
        api.post("/bookings", &unknown).await,
        404,
        "booking-not-found",
        &members,
    );
    let other_show = json!({ "from": 1, "showId": 2, "userName": "Bob" });
    let refused = api.post("/bookings", &other_show).await;
    assert_problem(refused, 404, "booking-not-found", &json!({}));

    let bobs = json!({ "showId": 1, "userName": "bob", "numberOfSeats": 3 });
    api.post("/bookings", &bobs).await;
    let refused = api.post("/bookings", &to("Bob", 2)).await;
    let members = json!({ "requested": 2, "maxSeatsPerUser": 4, "taken": 3 });
    assert_problem(refused, 409, "user-limit-reached", &members);
    let (status, _) = api.post("/bookings", &to("Bob", 1)).await;
    assert_eq!(status, StatusCode::CREATED);
    // Whoever has seats can have them on two bookings.
    let (status, _) = api.post("/bookings", &to("ALICE", 1)).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_audited(&api).await;

    for (body, pointer) in [
        (json!({ "from": 1 }), "/userName"),
        (json!({ "from": "1", "userName": "Bob" }), "/from"),
        (json!({ "from": 1, "userName": "" }), "/userName"),
        (to("Bob", 0), "/numberOfSeats"),
        (
            json!({ "from": 1, "userName": "Bob", "items": [] }),
            "/items",
        ),
    ] {
        let (status, answer) = api.post("/bookings", &body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        assert_eq!(answer["errors"][0]["pointer"], pointer, "{answer}");
    }
    let_pass(&api.db.pool, 125).await;
    let refused = api.post("/bookings", &to("Bob", 1)).await;
    assert_problem(refused, 409, "hold-expired", &json!({ "bookingId": 1 }));
}

/// Parts of a show's bookings are cancelled, confirmed and passed on at the same time as others are
/// booked, until nothing is left to do.
#[tokio::test(flavor = "multi_thread")]
async fn no_seat_is_lost_or_sold_twice_while_parts_come_and_go() {
    let api = Arc::new(with_a_show().await);
    let mut clients = JoinSet::new();
    for client in 0..20_i64 {
        let api = api.clone();
        clients.spawn(async move {
            for round in 0..6 {
                let (status, booking) = api.post("/bookings", &alice(3)).await;
                if status != StatusCode::CREATED {
                    assert_eq!(status, StatusCode::CONFLICT, "{booking}");
                    continue;
                }
                let path = format!("/bookings/{}", booking["id"]);
                let give = json!({ "from": booking["id"], "userName": "Bob", "numberOfSeats": 1 });
                let answers = match (client + round) % 4 {
                    0 => vec![
                        part(&api, &path, "cancel", 1).await,
                        part(&api, &path, "confirm", 1).await,
                    ],
                    1 => vec![
                        part(&api, &path, "confirm", 2).await,
                        api.post("/bookings", &give).await,
                    ],
                    2 => vec![
                        api.post("/bookings", &give).await,
                        api.post(&format!("{path}/cancel"), &json!({})).await,
                    ],
                    _ => vec![api.post(&format!("{path}/cancel"), &json!({})).await],
                };
                for (status, answer) in answers {
                    assert!(status.is_success(), "{answer}");
                }
            }
        });
    }
    clients.join_all().await;
    assert_audited(&api).await;
}

#[tokio::test]
async fn references_and_metadata_come_back_as_they_were_sent() {
    let api = with_a_show().await;
    let with = |reference: &str| {
        let mut body = alice(1);
        body["reference"] = json!(reference);
        body["metadata"] = json!({ "z": 1, "a": { "list": [1.5, "ü", null, true] } });
        body
    };
    let (status, first) = keyed(&api, "/bookings", "a", &with("order 1")).await;
    assert_eq!(status, StatusCode::CREATED, "{first}");
    assert_eq!(first["metadata"], with("")["metadata"]);
    let again = keyed(&api, "/bookings", "a", &with("order 1")).await.1;
    assert_eq!(again["id"], first["id"]);
    let other = keyed(&api, "/bookings", "a", &with("order 2")).await;
    assert_problem(other, 422, "idempotency-key-reused", &json!({}));
    let bulk = json!({ "bookings": [with("order 2"), alice(1), with("order 1")] });
    let (status, results) = api.post("/bookings/bulk", &bulk).await;
    assert_eq!(status, StatusCode::OK, "{results}");
    assert_eq!(results["results"][2]["booking"]["reference"], "order 1");

    let (_, found) = api.get("/bookings?reference=order%201&limit=1").await;
    assert_eq!(found[0]["id"], first["id"]);
    let (_, found) = api
        .get("/bookings?reference=order%201&showId=1&status=PENDING")
        .await;
    assert_eq!(found.as_array().unwrap().len(), 2);
    assert_eq!(api.get("/bookings?reference=order").await.1, json!([]));
    // A booking without them is what it was before there were any.
    let (_, plain) = api.get("/bookings/3").await;
    let members: Vec<&String> = plain.as_object().unwrap().keys().collect();
    assert_eq!(members.len(), 10, "{members:?}");
    let stored = "SELECT count(*) FROM bookings WHERE metadata->'a'->'list'->>1 = 'ü'";
    assert_eq!(count(&api.db.pool, stored).await, 3);
}

#[tokio::test]
async fn what_is_wrong_with_a_reference_or_metadata_is_named() {
    let api = with_a_show().await;
    let deep = (0..20).fold(json!({}), |inner, _| json!({ "a": inner }));
    for (member, value) in [
        ("reference", json!("")),
        ("reference", json!("x".repeat(65))),
        ("reference", json!("a\u{0}")),
        ("reference", json!("a\u{202e}")),
        ("reference", json!(null)),
        ("reference", json!(1)),
        ("metadata", json!({ "a": "x".repeat(3000) })),
        ("metadata", deep),
        ("metadata", json!({ "a": "\u{0}" })),
        ("metadata", json!([])),
        ("metadata", json!("a")),
        ("metadata", json!(null)),
    ] {
        for (path, mut body) in [("/bookings", alice(1)), ("/shows", the_show())] {
            body[member] = value.clone();
            let (status, answer) = api.post(path, &body).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
            let pointer = answer["errors"][0]["pointer"].as_str().unwrap();
            assert!(pointer.starts_with(&format!("/{member}")), "{answer}");
        }
    }
    assert_eq!(
        count(&api.db.pool, "SELECT count(*) FROM bookings").await,
        0
    );
    // The database refuses it, too.
    let long = "UPDATE shows SET metadata = json_build_object('a', repeat('x', 3000))";
    let refused = sqlx::query(long).execute(&api.db.pool).await;
    assert!(refused.unwrap_err().to_string().contains("metadata_length"));
}

#[tokio::test]
async fn the_bookings_of_a_show_are_exported() {
    let api = with_a_show().await;
    api.post("/shows", &the_show()).await;
    let mut other = alice(1);
    other["showId"] = json!(2);
    api.post("/bookings", &other).await;
    let mut formula = alice(2);
    formula["userName"] = json!("=1+1, \"you\"");
    formula["reference"] = json!("@order");
    formula["metadata"] = json!({ "a": [1, "b"] });
    api.post("/bookings", &formula).await;
    book(&api, 3).await;
    part(&api, "/bookings/3", "cancel", 1).await;
    let get = async |path: &str, accept: &str| {
        let request = api.request(Method::GET, path).header("accept", accept);
        let response = request.send().await.unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap();
        (kind.to_owned(), response.text().await.unwrap())
    };
    let (kind, csv) = get("/shows/1/export", "*/*").await;
    assert_eq!(kind, "text/csv; charset=utf-8");
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert_eq!(lines.len(), 4, "{csv}");
    assert!(lines[0].starts_with("id,showId,userName,numberOfSeats,status,createdAt"));
    let first = r#"2,1,"'=1+1, ""you""",2,PENDING,"#;
    assert!(lines[1].starts_with(first), "{csv}");
    let end = r#",,,,'@order,"{""a"":[1,""b""]}""#;
    assert!(lines[1].ends_with(end), "{csv}");
    assert!(lines[2].starts_with("3,1,Alice,2,PENDING,"), "{csv}");
    assert!(lines[2].ends_with(",,1,,,"), "{csv}");

    let (kind, lines) = get("/shows/1/export", "application/x-ndjson").await;
    assert_eq!(kind, "application/x-ndjson");
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut expected = api.get("/bookings?showId=1").await.1;
    let mut exported = json!(lines);
    for bookings in [&mut expected, &mut exported] {
        for booking in bookings.as_array_mut().unwrap() {
            booking["secondsLeft"].take();
        }
    }
    assert_eq!(exported, expected);
    let members = json!({ "showId": 9 });
    assert_problem(
        api.get("/shows/9/export").await,
        404,
        "show-not-found",
        &members,
    );
}

/// An export of several parts has each booking once, in order.
#[tokio::test]
async fn a_long_export_is_complete() {
    let api = Api::start_with(|config| config.queue_max = 2000).await;
    api.post("/shows", &the_show()).await;
    execute(
        &api.db.pool,
        "UPDATE shows SET seats = 5000, available_seats = 5000",
    )
    .await;
    for _ in 0..5 {
        let bulk = json!({ "bookings": vec![alice(1); 500] });
        assert_eq!(api.post("/bookings/bulk", &bulk).await.0, StatusCode::OK);
    }
    for (bookings, query) in [(2500, ""), (2000, "DELETE FROM bookings WHERE id > 2000")] {
        if !query.is_empty() {
            execute(&api.db.pool, query).await;
        }
        let request = api.request(Method::GET, "/shows/1/export");
        let request = request.header("accept", "application/x-ndjson");
        let text = request.send().await.unwrap().text().await.unwrap();
        let ids: Vec<i64> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["id"]
                    .as_i64()
                    .unwrap()
            })
            .collect();
        assert!(
            ids.iter().copied().eq(1..=bookings),
            "{} bookings",
            ids.len()
        );
    }
}
