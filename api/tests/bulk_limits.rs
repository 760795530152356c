//! Limits of bulk requests: what they may contain, how long they may be, and what they cost.

mod server;

use std::{fmt::Write, sync::Arc};

use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use shared::api_key::{self, NewApiKey, Scope};
use testing::{TestDatabase, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::server::{Api, alice, parse, the_show};

/// Maximum length of the body of a bulk request, in bytes.
const MAX_BYTES: usize = 640 * 1024;

fn body(bookings: &[Value]) -> String {
    json!({ "bookings": bookings }).to_string()
}

async fn send(api: &Api, body: &str) -> (StatusCode, Value) {
    let request = api.request(Method::POST, "/bookings/bulk");
    let request = request.header(header::CONTENT_TYPE, "application/json");
    parse(request.body(body.to_owned()).send().await.unwrap()).await
}

#[tokio::test]
async fn a_bulk_request_has_at_most_500_bookings_and_640_kib() {
    let api = Api::start_with(|config| config.queue_max = 1000).await;
    let mut show = the_show();
    show["seats"] = json!(1_000);
    api.post("/shows", &show).await;
    let (status, problem) = send(&api, &body(&vec![alice(1); 501])).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let error = json!({"pointer": "/bookings", "detail": "value has more than 500 items"});
    assert_eq!(problem["errors"], json!([error]));

    // The longest names and keys, and white space up to the limit.
    let longest: Vec<Value> = (0..500)
        .map(|n| {
            let (user, key) = ("🎭".repeat(200), format!("{n:x>255}"));
            json!({"showId": 1, "userName": user, "numberOfSeats": 1, "idempotencyKey": key})
        })
        .collect();
    let longest = body(&longest);
    assert!(longest.len() <= MAX_BYTES, "{}", longest.len());
    let too_long = longest.clone() + &" ".repeat(MAX_BYTES + 1 - longest.len());
    assert_eq!(too_long.len(), MAX_BYTES + 1);
    let (status, problem) = send(&api, &too_long).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(problem["maxBytes"], MAX_BYTES);
    assert_eq!(api.available_seats(1).await, 1000);
    let (status, answer) = send(&api, &too_long[..MAX_BYTES]).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(api.available_seats(1).await, 500);
}

#[tokio::test]
async fn no_body_is_requested_for_a_bulk_request_that_will_be_rejected() {
    let api = Api::start().await;
    let address = api.base.trim_start_matches("http://");
    for (head, expected) in [
        ("content-length: 655360", "100"),
        ("content-length: 655361", "413"),
        ("transfer-encoding: chunked", "100"),
        ("idempotency-key: k\r\ncontent-length: 9", "400"),
        ("content-encoding: gzip\r\ncontent-length: 9", "415"),
    ] {
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /bookings/bulk HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             expect: 100-continue\r\n{head}\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer, format!("HTTP/1.1 {expected}"), "{head}");
    }
    let (status, problem) = api
        .post("/bookings", &json!({"x": "x".repeat(16 * 1024)}))
        .await;
    assert_eq!(
        status,
        StatusCode::PAYLOAD_TOO_LARGE,
        "other routes keep their limit"
    );
    assert_eq!(problem["maxBytes"], 16 * 1024);
}

#[tokio::test]
async fn a_body_in_chunks_of_a_byte_is_read_up_to_its_limit() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    let address = api.base.trim_start_matches("http://");
    let fine = body(&[alice(1)]) + &" ".repeat(20_000);
    let too_long = " ".repeat(16 * 1024 + 1);
    for (path, body, expected) in [
        ("/bookings/bulk", fine, "200"),
        ("/bookings", too_long, "413"),
    ] {
        let mut sent = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n"
        );
        for byte in body.chars() {
            write!(sent, "1\r\n{byte}\r\n").unwrap();
        }
        sent.push_str("0\r\n\r\n");
        let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
        let sending = tokio::spawn(async move {
            write.write_all(sent.as_bytes()).await.ok();
            write
        });
        let mut answer = [0; 12];
        read.read_exact(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer, format!("HTTP/1.1 {expected}"));
        sending.abort();
    }
    assert_eq!(api.available_seats(1).await, 39);
}

#[tokio::test]
async fn the_header_idempotency_key_is_refused_and_says_where_keys_go() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    let request = api.request(Method::POST, "/bookings/bulk");
    let request = request.header("Idempotency-Key", "k");
    let request = request.json(&json!({"bookings": [alice(1)]}));
    let (status, problem) = parse(request.send().await.unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(problem["type"], "/problems/malformed");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("`idempotencyKey`"), "{detail}");
    assert_eq!(api.available_seats(1).await, 40);
}

#[tokio::test]
async fn a_bulk_request_counts_as_50_requests() {
    let api = Api::start_with(|config| config.callers.requests_per_second = Some(150)).await;
    let post = async |api: &Api| {
        let request = api.request(Method::POST, "/bookings/bulk");
        let request = request.json(&json!({"bookings": [alice(1)]}));
        request.send().await.unwrap()
    };
    let first = post(&api).await;
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(first.headers()["ratelimit"], "\"default\";r=100;t=1");
    // Requests that each count as one would not exceed the rate so soon.
    let mut bulks = 0;
    while post(&api).await.status() == StatusCode::OK {
        bulks += 1;
        assert!(bulks < 50, "a bulk request counts too little");
    }
    // A caller whose rate is lower than the cost of a bulk request still gets one.
    let slow = api.another_with(|config| config.callers.requests_per_second = Some(2));
    assert_eq!(post(&slow).await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_requests_that_one_caller_does_not_send_leave_permits_for_others() {
    let db = Arc::new(TestDatabase::new().await);
    let make_key = async |name: &str| {
        let new = NewApiKey {
            name,
            scopes: &[Scope::BookingsWrite],
            requests_per_second: None,
        };
        api_key::create(&db.pool, &new).await.unwrap().reveal()
    };
    let (slow, other) = (make_key("slow").await, make_key("other").await);
    let api = Api::serve(db.clone(), |config| config.callers.require_keys = true);
    let address = api.base.trim_start_matches("http://").to_owned();
    let begin = async || {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "POST /bookings/bulk HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {slow}\r\n\
             content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        (answer == *b"HTTP/1.1 100").then_some(stream)
    };
    let mut unsent = Vec::new();
    while let Some(stream) = begin().await {
        unsent.push(stream);
    }
    assert_eq!(unsent.len(), 128, "half of the permits");
    let post = async |key: &str| {
        let request = api.request(Method::POST, "/bookings/bulk").bearer_auth(key);
        let request = request.json(&json!({"bookings": [alice(1)]}));
        request.send().await.unwrap().status()
    };
    assert_eq!(post(&slow).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(post(&other).await, StatusCode::OK);
    drop(unsent);
    eventually("the permits are returned", async || {
        post(&slow).await == StatusCode::OK
    })
    .await;
}
