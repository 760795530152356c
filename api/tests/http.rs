//! The API as a client sees it: real HTTP on a real database.

mod server;

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use testing::{assert_seats_conserved, let_pass};

use crate::server::{Api, alice, parse, the_show};

fn seconds_between(from: &Value, to: &Value) -> i64 {
    let parse =
        |time: &Value| chrono::DateTime::parse_from_rfc3339(time.as_str().unwrap()).unwrap();
    (parse(to) - parse(from)).num_seconds()
}

#[tokio::test]
async fn the_documented_requests_work_as_written() {
    let api = Api::start().await;
    let response = api
        .request(Method::POST, "/shows")
        .json(&the_show())
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()[header::LOCATION], "/shows/1");
    let (status, show) = parse(response).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        show,
        json!({
            "id": 1, "name": "Morning Show", "startTime": "2025-12-10T10:00:00Z", "seats": 40,
            "availableSeats": 40, "holdSeconds": 120, "maxHoldSeconds": 900, "maxSeatsPerBooking": 1000,
            "maxSeatsPerUser": null, "status": "ON_SALE", "salesStart": null, "salesEnd": null,
            "createdAt": show["createdAt"],
        })
    );
    assert_eq!(api.get("/shows").await, (StatusCode::OK, json!([show])));

    let response = api
        .request(Method::POST, "/bookings")
        .json(&alice(2))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()[header::LOCATION], "/bookings/1");
    let (status, booking) = parse(response).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        booking,
        json!({
            "id": 1, "showId": 1, "userName": "Alice", "numberOfSeats": 2, "status": "PENDING",
            "expiresAt": booking["expiresAt"], "extendableUntil": booking["extendableUntil"], "secondsLeft": 120,
            "createdAt": booking["createdAt"], "resolvedAt": null,
        })
    );
    assert_eq!(
        seconds_between(&booking["createdAt"], &booking["expiresAt"]),
        120
    );
    assert_eq!(
        seconds_between(&booking["createdAt"], &booking["extendableUntil"]),
        900
    );
    assert_eq!(api.available_seats(1).await, 38);
    let (_, mut listed) = api.get("/bookings").await;
    let (_, mut found) = api.get("/bookings/1").await;
    for read_later in [&mut listed[0], &mut found] {
        assert!((1..=120).contains(&read_later["secondsLeft"].as_i64().unwrap()));
        read_later["secondsLeft"] = json!(120);
    }
    assert_eq!(listed, json!([booking]));
    assert_eq!(found, booking);

    for _ in 0..2 {
        let (status, confirmed) = api.post("/bookings/1/confirm", &json!({})).await;
        assert_eq!(
            (status, &confirmed["status"]),
            (StatusCode::OK, &json!("CONFIRMED"))
        );
    }
    let (status, problem) = api.post("/bookings/50/confirm", &json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(
        problem,
        json!({
            "type": "/problems/booking-not-found", "title": "Booking not found", "status": 404,
            "detail": "There is no booking 50.", "bookingId": 50,
        })
    );
    for _ in 0..2 {
        let (status, cancelled) = api.post("/bookings/1/cancel", &json!({})).await;
        assert_eq!(
            (status, &cancelled["status"]),
            (StatusCode::OK, &json!("CANCELLED"))
        );
        assert_eq!(api.available_seats(1).await, 40);
    }
}

#[tokio::test]
async fn a_refusal_carries_what_a_machine_can_act_on() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    let (_, held) = api.post("/bookings", &alice(38)).await;

    let (status, problem) = api.post("/bookings", &alice(3)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        problem,
        json!({
            "type": "/problems/not-enough-seats", "title": "Not enough seats", "status": 409,
            "detail": "Show 1 has 2 seats available, 3 were requested.",
            "showId": 1, "requested": 3, "available": 2,
        })
    );

    let_pass(&api.db.pool, 200).await;
    for act in ["confirm", "cancel"] {
        let (status, problem) = api.post(&format!("/bookings/1/{act}"), &json!({})).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(problem["type"], "/problems/hold-expired");
        assert_eq!(
            seconds_between(&problem["expiresAt"], &held["expiresAt"]),
            200
        );
    }
    let (_, stale) = api.get("/bookings/1").await;
    assert_eq!(stale["status"], "FAILED");

    // The seats of the expired hold count as available, and the next booking gets them, although no
    // worker runs.
    assert_eq!(api.available_seats(1).await, 40);
    assert_eq!(api.get("/shows").await.1[0]["availableSeats"], 40);
    let (status, _) = api.post("/bookings", &alice(40)).await;
    assert_eq!(status, StatusCode::CREATED);
    api.post("/bookings/2/cancel", &json!({})).await;
    let (status, problem) = api.post("/bookings/2/confirm", &json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["type"], "/problems/booking-cancelled");
    assert_seats_conserved(&api.db.pool).await;
}

/// Sends a body, and returns the status, the problem type and the pointers of the response.
async fn send_bad(api: &Api, path: &str, body: String) -> (u16, String, String) {
    let response = api
        .request(Method::POST, path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "application/problem+json"
    );
    let (status, problem) = parse(response).await;
    let kind = problem["type"].as_str().unwrap();
    let pointers: Vec<&str> = problem["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|fault| fault["pointer"].as_str().unwrap())
        .collect();
    (
        status.as_u16(),
        kind.trim_start_matches("/problems/").to_owned(),
        pointers.join(" "),
    )
}

#[tokio::test]
async fn bad_shows_get_clear_problems_and_change_nothing() {
    let api = Api::start().await;
    let show = |name: &str, rest: &str| {
        format!(r#"{{"name":{name},"startTime":"2025-12-10 10:00:00","seats":{rest}}}"#)
    };
    let long_name = format!("{:?}", "x".repeat(201));
    for (body, status, kind, pointers) in [
        (show(r#""a\u0000b""#, "1"), 422, "invalid", "/name"),
        (show(r#""a\nb""#, "1"), 422, "invalid", "/name"),
        (show(r#""""#, "1"), 422, "invalid", "/name"),
        (show(&long_name, "1"), 422, "invalid", "/name"),
        (show("7", "1"), 422, "invalid", "/name"),
        (show(r#""a""#, "0"), 422, "invalid", "/seats"),
        (show(r#""a""#, "-1"), 422, "invalid", "/seats"),
        (show(r#""a""#, "1000001"), 422, "invalid", "/seats"),
        (show(r#""a""#, "2147483648"), 422, "invalid", "/seats"),
        (show(r#""a""#, "1.5"), 422, "invalid", "/seats"),
        (show(r#""a""#, "1e400"), 400, "malformed", ""),
        (show(r#""""#, "0"), 422, "invalid", "/name /seats"),
        (
            show(r#""a""#, r#"1,"holdSeconds":9"#),
            422,
            "invalid",
            "/holdSeconds",
        ),
        (show(r#""a""#, r#"1,"hold":90"#), 422, "invalid", "/hold"),
        (
            r#"{"name":"a","startTime":"tomorrow","seats":1}"#.into(),
            422,
            "invalid",
            "/startTime",
        ),
        (
            r#"{"name":"a","seats":1}"#.into(),
            422,
            "invalid",
            "/startTime",
        ),
        (r#"{"name":"a","#.into(), 400, "malformed", ""),
        (String::new(), 400, "malformed", ""),
        ("[]".into(), 422, "invalid", ""),
        (
            r#"["a","2025-12-10 10:00:00",1,120]"#.into(),
            422,
            "invalid",
            "",
        ),
        (
            r#"{"name":"a","startTime":"9999-12-31T23:59:60Z","seats":1}"#.into(),
            422,
            "invalid",
            "/startTime",
        ),
        ("{} {}".into(), 400, "malformed", ""),
        (
            show(r#""a""#, r#"1,"a/b~c":1,"x.y":1"#),
            422,
            "invalid",
            "/a~1b~0c /x.y",
        ),
        (
            show(r#""a""#, r#"1,"":1,"a/b":1,"a/b":2"#),
            422,
            "invalid",
            "/ /a~1b",
        ),
        // Values of the wrong type, out of bounds, missing and unknown are all reported at once.
        (
            r#"{"name":7,"seats":0,"holdSeconds":"9","a/b":1,"maxSeatsPerUser":1.5}"#.into(),
            422,
            "invalid",
            "/a~1b /holdSeconds /maxSeatsPerUser /name /seats /startTime",
        ),
        (
            r#"{"name":"","startTime":"2025-13-10 10:00:00","seats":null}"#.into(),
            422,
            "invalid",
            "/name /seats /startTime",
        ),
        (
            r#"{"name":"a","startTime":"2025-12-10 10:00:00","seats":1,"seats":1}"#.into(),
            422,
            "invalid",
            "/seats",
        ),
    ] {
        let excerpt: String = body.chars().take(90).collect();
        let expected = (status, kind.to_owned(), pointers.to_owned());
        assert_eq!(send_bad(&api, "/shows", body).await, expected, "{excerpt}");
    }
    assert_eq!(api.get("/shows").await.1, json!([]));
}

#[tokio::test]
async fn bad_bookings_get_clear_problems_and_change_nothing() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    let booking = |seats: &str, user: &str| {
        format!(r#"{{"showId":1,"userName":{user},"numberOfSeats":{seats}}}"#)
    };
    for (body, status, kind, pointers) in [
        (booking("0", r#""Alice""#), 422, "invalid", "/numberOfSeats"),
        (
            booking("1001", r#""Alice""#),
            422,
            "invalid",
            "/numberOfSeats",
        ),
        (
            booking("2147483648", r#""Alice""#),
            422,
            "invalid",
            "/numberOfSeats",
        ),
        (booking("1", r#""\u0000""#), 422, "invalid", "/userName"),
        (
            booking("1", r#""a\u202egnp.exe""#),
            422,
            "invalid",
            "/userName",
        ),
        (
            booking("1", r#""Ali\u200bce""#),
            422,
            "invalid",
            "/userName",
        ),
        (
            booking("1", r#""Ali\u200dce""#),
            422,
            "invalid",
            "/userName",
        ),
        (
            booking("1", r#""\ufeffAlice""#),
            422,
            "invalid",
            "/userName",
        ),
        (booking("1", "null"), 422, "invalid", "/userName"),
        (booking("1", r#""\ud800""#), 400, "malformed", ""),
        ("x".repeat(1 << 20), 413, "body-too-large", ""),
    ] {
        let excerpt: String = body.chars().take(90).collect();
        let expected = (status, kind.to_owned(), pointers.to_owned());
        assert_eq!(
            send_bad(&api, "/bookings", body).await,
            expected,
            "{excerpt}"
        );
    }
    assert_eq!(api.get("/bookings").await.1, json!([]));
    assert_eq!(api.available_seats(1).await, 40);
}

#[tokio::test]
async fn a_booking_whose_show_is_named_is_found_under_its_own_only() {
    let api = Api::start().await;
    for _ in 0..2 {
        api.post("/shows", &the_show()).await;
        let show_id = api.get("/shows").await.1.as_array().unwrap().len();
        let request = json!({"showId": show_id, "userName": "Alice", "numberOfSeats": 1});
        assert_eq!(api.post("/bookings", &request).await.0, 201);
    }
    let seconds = json!({"seconds": 200});
    for (path, body) in [
        ("extend", &seconds),
        ("confirm", &json!({})),
        ("cancel", &json!({})),
    ] {
        for (show_id, status) in [(2, 404), (3, 404), (1, 200)] {
            let path = format!("/bookings/1/{path}?showId={show_id}");
            assert_eq!(api.post(&path, body).await.0, status, "{path}");
            let path = format!("/bookings/1?showId={show_id}");
            assert_eq!(api.get(&path).await.0, status, "{path}");
        }
    }
    assert_eq!(api.available_seats(1).await, 40);
    assert_eq!(api.available_seats(2).await, 39);
}

#[tokio::test]
async fn bad_requests_get_clear_problems() {
    let api = Api::start().await;
    for (method, path, status, kind) in [
        (Method::GET, "/", 404, "no-such-route"),
        (Method::GET, "/show", 404, "no-such-route"),
        (Method::GET, "/shows/1", 404, "show-not-found"),
        (Method::GET, "/shows/-1", 404, "show-not-found"),
        (Method::GET, "/shows/abc", 400, "malformed"),
        (
            Method::GET,
            "/bookings/9223372036854775808",
            400,
            "malformed",
        ),
        (Method::POST, "/bookings/abc/confirm", 400, "malformed"),
        (Method::POST, "/bookings/1/cancel", 404, "booking-not-found"),
        (
            Method::POST,
            "/bookings/1/cancel?showId=x",
            400,
            "malformed",
        ),
        (Method::GET, "/bookings/1?show=1", 400, "malformed"),
        (Method::GET, "/bookings/%00", 400, "malformed"),
        (Method::GET, "/bookings?limit=0", 422, "invalid"),
        (Method::GET, "/bookings?limit=1001", 422, "invalid"),
        (Method::GET, "/bookings?limit=abc", 400, "malformed"),
        (Method::GET, "/bookings?status=pending", 400, "malformed"),
        (Method::GET, "/bookings?userName=%00", 422, "invalid"),
        (Method::GET, "/bookings?userName=%ff", 400, "malformed"),
        (Method::GET, "/bookings?user=x", 400, "malformed"),
        (Method::GET, "/bookings?limit=1&limit=2", 400, "malformed"),
        (Method::POST, "/shows", 415, "not-json"),
        (Method::DELETE, "/shows", 405, "method-not-allowed"),
        (
            Method::GET,
            "/bookings/1/confirm",
            405,
            "method-not-allowed",
        ),
    ] {
        let response = api.request(method.clone(), path).send().await.unwrap();
        let allow = response.headers().contains_key(header::ALLOW);
        let (answered, problem) = parse(response).await;
        assert_eq!(answered, status, "{method} {path}: {problem}");
        assert_eq!(
            problem["type"],
            format!("/problems/{kind}"),
            "{method} {path}"
        );
        assert_eq!(problem["status"], status, "{method} {path}");
        assert_eq!(allow, status == 405, "{method} {path}");
    }
}

#[tokio::test]
async fn a_malformed_query_names_its_parameter() {
    let api = Api::start().await;
    for (path, parameter) in [
        ("/bookings?limit=abc", "limit"),
        ("/bookings?limit=1&limit=2", "limit"),
        ("/bookings?showId=&limit=1", "showId"),
        ("/bookings?user=x", "user"),
        ("/bookings?status=pending", "status"),
        (
            "/bookings?createdAfter=2030-01-01T00:00:00%2B",
            "createdAfter",
        ),
        ("/bookings?after=x", "after"),
        ("/bookings?after=1-1", "after"),
        ("/bookings/1?show.id=1", "show.id"),
        ("/shows?limit=1&limit=1", "limit"),
    ] {
        let (status, problem) = api.get(path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(problem["type"], "/problems/malformed", "{path}");
        assert_eq!(problem["errors"].as_array().unwrap().len(), 1, "{path}");
        assert_eq!(problem["errors"][0]["pointer"], parameter, "{path}");
        let detail = problem["detail"].as_str().unwrap();
        let begins = format!("Query parameter {parameter}: ");
        assert!(detail.starts_with(&begins), "{path}: {detail}");
    }
}

#[tokio::test]
async fn a_body_is_json_in_utf_8_as_it_is() {
    let api = Api::start().await;
    let show = the_show().to_string().into_bytes();
    let json = [(header::CONTENT_TYPE, "application/json")];
    let post = async |headers: &[(header::HeaderName, &str)], body: &[u8]| {
        let mut request = api.request(Method::POST, "/shows").body(body.to_owned());
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let answer = request.send().await.unwrap();
        let accepted = answer.headers().get(header::ACCEPT_ENCODING).cloned();
        let (status, problem) = parse(answer).await;
        let text = format!("{} {}", problem["type"], problem["detail"]);
        (status.as_u16(), text, accepted)
    };
    for charset in ["utf-8", "UTF-8", "\"utf-8\"", "utf8"] {
        let kind = format!("application/json;charset={charset}");
        let (status, text, _) = post(&[(header::CONTENT_TYPE, &kind)], &show).await;
        assert_eq!(status, 201, "{charset}: {text}");
    }
    let identity = (header::CONTENT_ENCODING, "identity");
    let (status, text, _) = post(&[json[0].clone(), identity], &show).await;
    assert_eq!(status, 201, "{text}");

    for charset in ["iso-8859-1", "utf-16", "\"us-ascii\""] {
        let kind = format!("application/json; x=1; Charset={charset}");
        let (status, text, _) = post(&[(header::CONTENT_TYPE, &kind)], &show).await;
        assert_eq!(status, 415, "{charset}");
        assert!(text.contains("charset"), "{text}");
    }
    for coding in ["gzip", "identity, br"] {
        let (status, text, accepted) = post(
            &[json[0].clone(), (header::CONTENT_ENCODING, coding)],
            &show,
        )
        .await;
        assert_eq!(status, 415, "{coding}");
        assert_eq!(accepted.unwrap(), "identity");
        assert!(text.contains("/problems/content-encoding"), "{text}");
    }
    let marked = [b"\xef\xbb\xbf", show.as_slice()].concat();
    let utf16: Vec<u8> = "\u{feff}{}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (body, expected) in [
        (&marked, "byte order mark"),
        (&utf16, "not valid UTF-8 at byte 1."),
        (
            &b"{\"name\":\"\xe9\"}".to_vec(),
            "not valid UTF-8 at byte 10.",
        ),
    ] {
        let (status, text, _) = post(&json, body).await;
        assert_eq!(status, 400, "{text}");
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn start_time_is_utc_or_rfc_3339() {
    let api = Api::start().await;
    for (given, expected) in [
        ("2025-12-10 10:00:00", "2025-12-10T10:00:00Z"),
        ("2025-12-10T10:00:00Z", "2025-12-10T10:00:00Z"),
        ("2025-12-10T10:00:00+02:00", "2025-12-10T08:00:00Z"),
    ] {
        let body = json!({"name": "Ü 🎭", "startTime": given, "seats": 1, "holdSeconds": 600});
        let (status, show) = api.post("/shows", &body).await;
        assert_eq!(status, StatusCode::CREATED, "{show}");
        assert_eq!(show["startTime"], expected);
        assert_eq!(show["name"], "Ü 🎭");
        assert_eq!(show["holdSeconds"], 600);
    }
}

#[tokio::test]
async fn lists_come_in_pages_and_filtered() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    api.post("/shows", &the_show()).await;
    for (show, user) in [
        (1, "Alice"),
        (2, "Bob & Co"),
        (1, "Bob & Co"),
        (2, "Bob & Co"),
        (2, "Bob & Co"),
    ] {
        let body = json!({"showId": show, "userName": user, "numberOfSeats": 1});
        assert_eq!(api.post("/bookings", &body).await.0, StatusCode::CREATED);
    }
    api.post("/bookings/4/confirm", &json!({})).await;

    let follow = async |first: &str| {
        let mut pages: Vec<Vec<i64>> = Vec::new();
        let mut next = Some(first.to_owned());
        while let Some(path) = next {
            let response = api.request(Method::GET, &path).send().await.unwrap();
            next = response.headers().get(header::LINK).map(|link| {
                let link = link.to_str().unwrap();
                let path = link.strip_prefix('<').unwrap();
                path.strip_suffix(r#">; rel="next""#).unwrap().to_owned()
            });
            let (status, items) = parse(response).await;
            assert_eq!(status, StatusCode::OK, "{items}");
            pages.push(
                items
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|b| b["id"].as_i64().unwrap())
                    .collect(),
            );
        }
        pages
    };
    assert_eq!(follow("/bookings").await, [vec![1, 2, 3, 4, 5]]);
    assert_eq!(
        follow("/bookings?limit=2").await,
        [vec![1, 2], vec![3, 4], vec![5]]
    );
    assert_eq!(follow("/bookings?limit=5").await, [vec![1, 2, 3, 4, 5]]);
    assert_eq!(follow("/bookings?after=5").await, [Vec::<i64>::new()]);
    assert_eq!(
        follow("/bookings?showId=2&userName=Bob+%26+Co&status=PENDING&limit=1").await,
        [vec![2], vec![5]]
    );
    assert_eq!(follow("/bookings?status=CONFIRMED").await, [vec![4]]);
    assert_eq!(follow("/shows?limit=1").await, [vec![1], vec![2]]);
    // With a cursor of another list, each page would start from the beginning.
    for other_list in ["after=1795507306451310-4", "status=PENDING&after=3"] {
        let (status, _) = api.get(&format!("/bookings?{other_list}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{other_list}");
    }
}

#[tokio::test]
async fn the_request_id_is_echoed_or_made() {
    let api = Api::start().await;
    let id = async |sent: Option<&str>| {
        let mut request = api.request(Method::GET, "/nowhere");
        if let Some(sent) = sent {
            request = request.header("x-request-id", sent);
        }
        let response = request.send().await.unwrap();
        response.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(id(Some("order-77/a")).await, "order-77/a");
    assert_eq!(id(None).await.len(), 32);
    assert_ne!(id(None).await, id(None).await);
    assert_eq!(id(Some("with space")).await.len(), 32, "not accepted");
    assert_eq!(id(Some(&"x".repeat(129))).await.len(), 32, "not accepted");
}

#[tokio::test]
async fn without_a_database_it_lives_but_is_not_ready() {
    let api = Api::start().await;
    assert_eq!(api.get("/health/live").await.0, StatusCode::OK);
    assert_eq!(api.get("/health/ready").await.0, StatusCode::OK);
    api.db.pool.close().await;
    assert_eq!(api.get("/health/live").await.0, StatusCode::OK);
    for path in ["/health/ready", "/shows", "/bookings/1"] {
        let response = api.request(Method::GET, path).send().await.unwrap();
        let seconds: u32 = response.headers()[header::RETRY_AFTER]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((1..=3).contains(&seconds));
        let (status, problem) = parse(response).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(problem["type"], "/problems/unavailable");
    }
}

#[tokio::test]
async fn a_problem_reads_from_the_general_to_the_particular() {
    let api = Api::start().await;
    let response = api.request(Method::GET, "/shows/5").send().await.unwrap();
    assert_eq!(
        response.text().await.unwrap(),
        r#"{"type":"/problems/show-not-found","title":"Show not found","status":404,"detail":"There is no show 5.","showId":5}"#
    );
}

#[tokio::test]
async fn every_answer_keeps_browsers_from_making_more_of_it() {
    let api = Api::start().await;
    for (path, policy) in [
        ("/shows", "default-src 'none'"),
        ("/nowhere", "default-src 'none'"),
        ("/docs/", "default-src 'self'"),
    ] {
        let response = api.request(Method::GET, path).send().await.unwrap();
        let headers = response.headers();
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        assert!(headers.contains_key(header::CACHE_CONTROL), "{path}");
        let policies: Vec<_> = headers
            .get_all(header::CONTENT_SECURITY_POLICY)
            .iter()
            .collect();
        assert_eq!(policies.len(), 1, "{path}");
        assert!(policies[0].to_str().unwrap().starts_with(policy), "{path}");
    }
}

/// Joiners are part of how some scripts and emoji are written.
#[tokio::test]
async fn names_of_all_scripts_are_taken_as_they_are() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    for name in [
        "Łódź",
        "می\u{200c}خواهم",
        "👩\u{200d}👩\u{200d}👧",
        "❤\u{fe0f}\u{200d}🔥",
        "ශ්\u{200d}රී",
    ] {
        let body = json!({"showId": 1, "userName": name, "numberOfSeats": 1});
        let (status, booking) = api.post("/bookings", &body).await;
        assert_eq!(status, StatusCode::CREATED, "{name}: {booking}");
        assert_eq!(booking["userName"], name);
    }
}
