//! Errors in bulk requests: all of them are reported at once, and nothing is done.

mod server;

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::server::{Api, alice, parse, the_show};

/// Maximum length of the body of a bulk request, in bytes.
const MAX_BYTES: usize = 640 * 1024;

/// Sends a body, and returns the status, the problem type and the pointers of the response.
async fn send(api: &Api, body: &str) -> (u16, String, Vec<String>) {
    let request = api.request(Method::POST, "/bookings/bulk");
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let (status, problem) = parse(request.body(body.to_owned()).send().await.unwrap()).await;
    let kind = problem["type"].as_str().unwrap_or_default();
    let pointers = problem["errors"].as_array().into_iter().flatten();
    let pointers = pointers.map(|error| error["pointer"].as_str().unwrap().to_owned());
    (
        status.as_u16(),
        kind.trim_start_matches("/problems/").to_owned(),
        pointers.collect(),
    )
}

fn body(bookings: &[Value]) -> String {
    json!({ "bookings": bookings }).to_string()
}

/// Returns a body with these texts in the place of bookings.
fn body_of(bookings: &[&str]) -> String {
    format!(r#"{{"bookings":[{}]}}"#, bookings.join(","))
}

#[tokio::test]
async fn an_invalid_bulk_request_gets_a_clear_problem_and_changes_nothing() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    let fine = alice(1).to_string();
    let with = |member: &str| fine.replace('{', &format!("{{{member},"));
    let key = |key: &str| with(&format!(r#""idempotencyKey":{key}"#));
    let long_key = key(&format!("{:?}", "x".repeat(256)));
    for (bookings, pointers) in [
        (vec![], &["/bookings"][..]),
        (vec!["7"], &["/bookings/0"]),
        (vec![&fine, "null", &fine], &["/bookings/1"]),
        (vec![r#"[1,"Alice",1]"#], &["/bookings/0"]),
        (vec![&fine, &with(r#""a/b":1"#)], &["/bookings/1/a~1b"]),
        (vec![&fine, &with(r#""showId":1"#)], &["/bookings/1/showId"]),
        (
            vec![&key(r#""""#), &key(r#""a b""#), &key(r#""é""#), &key("7")],
            &[
                "/bookings/0/idempotencyKey",
                "/bookings/1/idempotencyKey",
                "/bookings/2/idempotencyKey",
                "/bookings/3/idempotencyKey",
            ],
        ),
        (vec![&long_key], &["/bookings/0/idempotencyKey"]),
    ] {
        let (status, kind, found) = send(&api, &body_of(&bookings)).await;
        assert_eq!((status, kind.as_str()), (422, "invalid"), "{bookings:?}");
        assert_eq!(found, pointers, "{bookings:?}");
    }
    for (body, status, kind, pointers) in [
        (String::new(), 400, "malformed", &[][..]),
        (r#"{"bookings":["#.into(), 400, "malformed", &[]),
        ("{}".into(), 422, "invalid", &["/bookings"]),
        (r#"{"bookings":{}}"#.into(), 422, "invalid", &["/bookings"]),
        (
            body_of(&[&fine]).replace('}', r#","x":1}"#),
            422,
            "invalid",
            &["/bookings/0/x", "/x"],
        ),
        (
            body_of(&[&fine]).replacen('{', "[{", 1) + "]",
            422,
            "invalid",
            &[""],
        ),
    ] {
        let found = send(&api, &body).await;
        let pointers: Vec<String> = pointers.iter().map(|p| (*p).to_owned()).collect();
        assert_eq!(found, (status, kind.to_owned(), pointers), "{body}");
    }
    assert_eq!(api.get("/bookings").await.1, json!([]));
}

#[tokio::test]
async fn all_errors_of_a_bulk_request_are_reported_at_once_and_in_order() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    let wrong = json!({"showId": 1, "userName": "", "numberOfSeats": 0, "idempotencyKey": "a b"});
    let mut bookings = vec![alice(1); 12];
    for at in [2, 10] {
        bookings[at] = wrong.clone();
    }
    let pointers_of = |at: i32, members: [&str; 3]| members.map(|m| format!("/bookings/{at}/{m}"));
    let members = ["idempotencyKey", "numberOfSeats", "userName"];
    let mut expected = [pointers_of(2, members), pointers_of(10, members)].concat();
    // All values decode, and are out of bounds.
    let (_, kind, pointers) = send(&api, &body(&bookings)).await;
    assert_eq!(kind, "invalid");
    assert_eq!(pointers, expected);

    // Others do not decode, or are missing.
    bookings[11] = json!({"showId": "1", "userName": "\u{202e}"});
    let (_, kind, pointers) = send(&api, &body(&bookings)).await;
    assert_eq!(kind, "invalid");
    expected.extend(pointers_of(11, ["numberOfSeats", "showId", "userName"]));
    assert_eq!(pointers, expected);
    assert_eq!(api.get("/bookings").await.1, json!([]));
}

/// Errors could be many times as long as the body.
#[tokio::test]
async fn the_errors_of_a_bulk_request_are_bounded() {
    let api = Api::start().await;
    let fill = |text: &str, separator: &str| {
        let count = (MAX_BYTES - 100) / (text.len() + separator.len());
        vec![text; count].join(separator)
    };
    for bookings in [
        fill("1", ","),
        fill("{}", ","),
        fill(r#"{"showId":1,"userName":"","numberOfSeats":0}"#, ","),
        format!("{{{}}}", fill(r#""a":1"#, ",")),
        format!("{{\"{}\":1}}", fill("~", "")),
        fill("{\"a\":1}", ","),
        vec!["{}"; 5000].join(","),
    ] {
        let request = api.request(Method::POST, "/bookings/bulk");
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let response = request.body(body_of(&[&bookings])).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let answer = response.bytes().await.unwrap();
        assert!(answer.len() < MAX_BYTES, "{}", answer.len());
    }
}
