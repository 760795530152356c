//! Requests that are safe to retry, and requests that apply to one version of a resource.

mod server;

use reqwest::{Method, Response, StatusCode, header};
use serde_json::{Value, json};
use testing::{assert_seats_conserved, let_pass};

use crate::server::{Api, alice, parse, the_show};

/// Sends a body with an `Idempotency-Key`.
async fn send(api: &Api, path: &str, key: &str, body: &Value) -> Response {
    let request = api.request(Method::POST, path).json(body);
    request.header("Idempotency-Key", key).send().await.unwrap()
}

fn is_replayed(response: &Response) -> bool {
    response
        .headers()
        .get("idempotency-replayed")
        .is_some_and(|value| value == "true")
}

#[tokio::test]
async fn a_repeated_request_books_once() {
    let api = Api::start().await;
    let first = send(&api, "/shows", "show", &the_show()).await;
    assert!(!is_replayed(&first));
    let again = send(&api, "/shows", "show", &the_show()).await;
    assert!(is_replayed(&again));
    assert_eq!(again.status(), StatusCode::CREATED);
    assert_eq!(again.headers()[header::LOCATION], "/shows/1");
    assert_eq!(parse(again).await.1, parse(first).await.1);

    let first = send(&api, "/bookings", "k", &alice(2)).await;
    assert!(!is_replayed(&first));
    // The same request in another notation.
    let body = r#"{ "numberOfSeats":2, "userName":"Al\u0069ce","showId":1 }"#;
    let again = api
        .request(Method::POST, "/bookings")
        .header("Idempotency-Key", "k")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    assert!(is_replayed(&again));
    assert_eq!(again.status(), StatusCode::CREATED);
    assert_eq!(again.headers()[header::LOCATION], "/bookings/1");
    assert_eq!(parse(again).await.1["id"], 1);

    let other = send(&api, "/bookings", "k", &alice(3)).await;
    let (status, problem) = parse(other).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(problem["type"], "/problems/idempotency-key-reused");
    let other = send(&api, "/bookings", "show", &alice(2)).await;
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(api.available_seats(1).await, 38);
    assert_seats_conserved(&api.db.pool).await;
}

/// A retry reaches another api before the first answer, as after a timeout behind a load balancer.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_at_two_apis_at_once_books_once_and_both_get_the_booking() {
    let one = Api::start().await;
    let two = one.another();
    one.post("/shows", &the_show()).await;
    for round in 0..20 {
        let key = round.to_string();
        let body = alice(1);
        let (left, right) = tokio::join!(
            send(&one, "/bookings", &key, &body),
            send(&two, "/bookings", &key, &body)
        );
        assert_ne!(is_replayed(&left), is_replayed(&right));
        let (left, right) = (parse(left).await, parse(right).await);
        assert_eq!(
            (left.0, right.0),
            (StatusCode::CREATED, StatusCode::CREATED)
        );
        assert_eq!(left.1["id"], right.1["id"]);
    }
    assert_eq!(one.available_seats(1).await, 20);
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_and_nothing_is_booked() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    for key in ["", "with space", "\u{e9}", &"x".repeat(256)] {
        let (status, problem) = parse(send(&api, "/bookings", key, &alice(1)).await).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{key}");
        assert_eq!(problem["type"], "/problems/malformed");
    }
    let twice = api.request(Method::POST, "/bookings").json(&alice(1));
    let twice = twice
        .header("Idempotency-Key", "a")
        .header("Idempotency-Key", "b");
    assert_eq!(
        twice.send().await.unwrap().status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(api.available_seats(1).await, 40);
    let longest = send(&api, "/bookings", &"x".repeat(255), &alice(1)).await;
    assert_eq!(longest.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_client_that_has_it_already_is_told_so() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    for (booking, path) in [(1, "/shows/1"), (2, "/bookings/2")] {
        api.post("/bookings", &alice(1)).await;
        let get = async |etag: &str| {
            let request = api.request(Method::GET, path);
            let response = request.header(header::IF_NONE_MATCH, etag).send();
            response.await.unwrap()
        };
        let first = get("\"none\"").await;
        assert_eq!(first.status(), StatusCode::OK);
        let etag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        for known in [&etag, &format!("\"x\", W/{etag}"), "*"] {
            let response = get(known).await;
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(response.headers()[header::ETAG], etag);
            assert_eq!(response.text().await.unwrap(), "");
        }
        assert_eq!(get("x").await.status(), StatusCode::BAD_REQUEST);
        let cancel = format!("/bookings/{booking}/cancel");
        api.post(&cancel, &json!({})).await;
        assert_eq!(get(&etag).await.status(), StatusCode::OK, "a new version");
    }
}

#[tokio::test]
async fn a_change_is_made_only_to_the_version_that_it_is_meant_for() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    api.post("/bookings", &alice(1)).await;
    let act = async |act: &str, etag: &str| {
        let path = format!("/bookings/1/{act}");
        let request = api
            .request(Method::POST, &path)
            .json(&json!({"seconds": 500}));
        request.header(header::IF_MATCH, etag).send().await.unwrap()
    };
    let seen = api
        .request(Method::GET, "/bookings/1")
        .send()
        .await
        .unwrap();
    let seen = seen.headers()[header::ETAG].to_str().unwrap().to_owned();
    let extended = act("extend", &seen).await;
    assert_eq!(extended.status(), StatusCode::OK);
    let now = extended.headers()[header::ETAG]
        .to_str()
        .unwrap()
        .to_owned();
    for stale in [&seen, &format!("W/{now}"), "\"\""] {
        for action in ["confirm", "cancel"] {
            let (status, problem) = parse(act(action, stale).await).await;
            assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{action} {stale}");
            assert_eq!(problem["type"], "/problems/booking-changed");
            assert_eq!(problem["status"], 412);
            assert_eq!(problem["currentStatus"], "PENDING");
        }
    }
    assert_eq!(
        act("confirm", "nonsense").await.status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(act("confirm", &now).await.status(), StatusCode::OK);
    assert_eq!(
        act("confirm", &now).await.status(),
        StatusCode::OK,
        "the booking is already confirmed"
    );
    assert_eq!(act("cancel", "*").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_hold_can_be_extended_as_far_as_its_show_allows() {
    let api = Api::start().await;
    let mut show = the_show();
    show["holdSeconds"] = json!(60);
    show["maxHoldSeconds"] = json!(300);
    api.post("/shows", &show).await;
    let (_, booking) = api.post("/bookings", &alice(1)).await;
    assert_eq!(booking["secondsLeft"], 60);
    let extend = async |seconds: Value| {
        api.post("/bookings/1/extend", &json!({ "seconds": seconds }))
            .await
    };
    let (status, extended) = extend(json!(200)).await;
    assert_eq!(
        (status, &extended["secondsLeft"]),
        (StatusCode::OK, &json!(200))
    );
    let (status, shorter) = extend(json!(10)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        shorter["expiresAt"], extended["expiresAt"],
        "a hold never ends sooner"
    );

    let (status, problem) = extend(json!(301)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["type"], "/problems/extension-too-long");
    assert_eq!(problem["extendableUntil"], booking["extendableUntil"]);
    assert!((1..=300).contains(&problem["maxSeconds"].as_i64().unwrap()));
    for (bad, status) in [
        (json!(0), 422),
        (json!(86_401), 422),
        (json!("60"), 422),
        (Value::Null, 422),
    ] {
        assert_eq!(extend(bad).await.0, status);
    }

    let_pass(&api.db.pool, 100).await;
    assert_eq!(api.get("/bookings/1").await.1["status"], "PENDING");
    assert_eq!(
        api.post("/bookings/1/confirm", &json!({})).await.0,
        StatusCode::OK
    );
    let (status, problem) = extend(json!(10)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["type"], "/problems/booking-confirmed");
    assert_eq!(api.get("/bookings/1").await.1["secondsLeft"], Value::Null);
}

#[tokio::test]
async fn a_show_limits_bookings_and_users() {
    let api = Api::start().await;
    let mut show = the_show();
    show["maxSeatsPerBooking"] = json!(3);
    show["maxSeatsPerUser"] = json!(4);
    let (status, show) = api.post("/shows", &show).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        (&show["maxSeatsPerBooking"], &show["maxSeatsPerUser"]),
        (&json!(3), &json!(4))
    );
    let (status, problem) = api.post("/bookings", &alice(4)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["type"], "/problems/too-many-seats");
    assert_eq!(problem["maxSeatsPerBooking"], 3);
    assert_eq!(
        api.post("/bookings", &alice(3)).await.0,
        StatusCode::CREATED
    );
    let (status, problem) = api.post("/bookings", &alice(2)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["type"], "/problems/user-limit-reached");
    assert_eq!(
        (&problem["maxSeatsPerUser"], &problem["taken"]),
        (&json!(4), &json!(3))
    );
    assert_eq!(api.available_seats(1).await, 37);
}
