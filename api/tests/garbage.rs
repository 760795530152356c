//! Arbitrary requests and bytes get a response that is not a 5xx, and lose no seat.

mod server;

use std::time::Duration;

use proptest::{
    collection::{hash_map, vec},
    prelude::*,
    sample::select,
    test_runner::{Config as Cases, TestCaseError, TestRunner},
};
use reqwest::{
    Client, Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};
use testing::assert_seats_conserved;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
    time::timeout,
};

use crate::server::{Api, alice, the_show};

/// Timeout of a response, longer than any request takes.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2..1200_i64).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        select(&["2030-01-01 20:00:00", "a", "\u{0}", ""][..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            hash_map(any::<String>(), inner, 0..6).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Generates a valid request, or one with a single wrong field.
fn nearly_right() -> impl Strategy<Value = (Method, String, Value)> {
    let right = [
        (
            "/shows",
            json!({
                "name": "a", "startTime": "2030-01-01 20:00:00", "seats": 10, "holdSeconds": 60, "maxHoldSeconds": 600,
                "maxSeatsPerBooking": 4, "maxSeatsPerUser": 8,
            }),
        ),
        (
            "/bookings",
            json!({"showId": 1, "userName": "Alice", "numberOfSeats": 1}),
        ),
        (
            "/bookings/bulk",
            json!({"bookings": [{"showId": 1, "userName": "Alice", "numberOfSeats": 1, "idempotencyKey": "a"}]}),
        ),
        ("/bookings/1/extend", json!({"seconds": 60})),
    ];
    let extremes = json!([
        "\u{0}",
        "\u{7f}",
        "",
        "x".repeat(201),
        0,
        -1,
        i64::MAX,
        u64::MAX,
        1e308,
        0.5,
        null,
        [],
        {}
    ]);
    let extremes = extremes.as_array().unwrap().clone();
    let wrong = prop_oneof![select(extremes), any_json()];
    let fault = prop::option::of((any::<prop::sample::Index>(), wrong));
    (select(right.to_vec()), fault).prop_map(|((path, mut body), fault)| {
        if let (Some((index, wrong)), Some(fields)) = (fault, body.as_object_mut()) {
            let field = fields.keys().nth(index.index(fields.len())).cloned();
            fields.insert(field.unwrap_or_default(), wrong);
        }
        (Method::POST, path.to_owned(), body)
    })
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => any_json().prop_map(|value| value.to_string().into_bytes()),
        1 => vec(any::<u8>(), 0..64),
        1 => (0..40_000_usize).prop_map(|length| vec![b'['; length]),
        1 => Just(Vec::new()),
    ]
}

fn any_request() -> impl Strategy<Value = (Method, String, Vec<u8>)> {
    prop_oneof![
        nearly_right().prop_map(|(method, path, body)| (
            method,
            path,
            body.to_string().into_bytes()
        )),
        (any_method(), any_path(), any_body()),
    ]
}

fn any_headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let names = [
        "accept-encoding",
        "authorization",
        "content-encoding",
        "content-type",
        "expect",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "origin",
        "x-forwarded-for",
        "x-request-id",
        "x-unknown",
    ];
    let values = [
        "*",
        "\"a\"",
        "\"a\", W/\"b\"",
        "gzip",
        "100-continue",
        "Bearer tkt_1_00",
        "application/json",
        "::1, 1.1.1.1",
    ];
    let value = prop_oneof![
        select(values.map(|value| value.as_bytes().to_vec()).to_vec()),
        vec(prop_oneof![32..127_u8, 128..=255_u8], 0..300),
    ];
    vec((select(names.to_vec()), value), 0..5)
}

fn any_path() -> impl Strategy<Value = String> {
    let document = api::openapi::document();
    let paths: Vec<String> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let paths = [
        paths,
        vec!["/docs/".into(), "/openapi.json".into(), "/{id}".into()],
    ]
    .concat();
    let id = prop_oneof![
        4 => (0..4_i64).prop_map(|id| id.to_string()),
        1 => any::<i64>().prop_map(|id| id.to_string()),
        1 => encoded(),
    ];
    let parameters = [
        "showId",
        "status",
        "userName",
        "createdAfter",
        "expiresBefore",
        "limit",
        "after",
        "x",
    ];
    let value = prop_oneof![
        select(&["1", "PENDING", "FAILED", "2026-11-23T20:00:00Z", "1-1", ""][..])
            .prop_map(str::to_owned),
        encoded(),
    ];
    let query = vec((select(parameters.to_vec()), value), 0..4);
    (select(paths), id, query).prop_map(|(path, id, query)| {
        let query: Vec<String> = query
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        format!("{}?{}", path.replace("{id}", &id), query.join("&"))
    })
}

/// Generates any bytes, percent-encoded for a path or query.
fn encoded() -> impl Strategy<Value = String> {
    vec(any::<u8>(), 0..12)
        .prop_map(|bytes| bytes.iter().map(|byte| format!("%{byte:02X}")).collect())
}

fn any_method() -> impl Strategy<Value = Method> {
    let others = ["PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO"];
    prop_oneof![
        4 => Just(Method::POST),
        2 => Just(Method::GET),
        1 => select(others.to_vec()).prop_map(|name| name.parse().unwrap()),
    ]
}

/// Two apis: one that requires API keys, and one that does not.
struct Target {
    runtime: Runtime,
    apis: Vec<Api>,
}

fn target() -> Target {
    let runtime = Runtime::new().unwrap();
    let apis = runtime.block_on(async {
        let open = Api::start().await;
        open.post("/shows", &the_show()).await;
        open.post("/bookings", &alice(1)).await;
        let guarded = open.another_with(|config| {
            config.callers.require_keys = true;
            config.cors_origins = vec![HeaderValue::from_static("https://a.example")];
        });
        vec![open, guarded]
    });
    Target { runtime, apis }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the argument of the closure cannot be inferred from a reference"
)]
fn run<S: Strategy>(
    cases: u32,
    strategy: S,
    target: &Target,
    test: impl AsyncFn(&Api, &S::Value) -> Result<(), TestCaseError>,
) {
    let cases = Cases {
        cases,
        failure_persistence: None,
        ..Cases::default()
    };
    let result = TestRunner::new(cases).run(&strategy, |input| {
        target.runtime.block_on(async {
            for api in &target.apis {
                test(api, &input).await?;
            }
            Ok(())
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let pool = &target.apis[0].db.pool;
    target.runtime.block_on(assert_seats_conserved(pool));
}

#[test]
fn any_request_gets_an_answer_that_is_no_5xx() {
    let requests = (any_request(), any_headers(), any::<bool>());
    run(
        1500,
        requests,
        &target(),
        async |api, ((method, path, body), headers, is_json)| {
            let mut all: HeaderMap = headers
                .iter()
                .map(|(name, value)| {
                    let value = HeaderValue::from_bytes(value).expect("a valid header value");
                    (HeaderName::from_static(name), value)
                })
                .collect();
            if *is_json {
                all.insert("content-type", HeaderValue::from_static("application/json"));
            }
            let request = api
                .request(method.clone(), path)
                .headers(all)
                .body(body.clone());
            let answer = timeout(ANSWERED_WITHIN, request.send()).await;
            let answer = answer
                .expect("a response in time")
                .map_err(|error| TestCaseError::fail(format!("no answer: {error:?}")))?;
            prop_assert!(answer.status().as_u16() < 500, "{}", answer.status());
            prop_assert!(
                answer.headers().contains_key("x-request-id") || *method == Method::OPTIONS
            );
            let is_error = answer.status().as_u16() >= 400;
            let kind = answer.headers().get("content-type").cloned();
            if is_error && *method != Method::HEAD && !path.starts_with("/docs/") {
                prop_assert_eq!(kind.unwrap(), "application/problem+json");
            }
            answer
                .bytes()
                .await
                .map_err(|error| TestCaseError::fail(format!("body cut off: {error:?}")))?;
            Ok(())
        },
    );
}

/// Generates bytes that the server must answer with a 4xx once a blank line follows.
///
/// A server skips line ends before a request and waits for more, so the first byte of noise is not
/// a line end. The path of a valid request has no route.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let begins: Vec<u8> = (0..=u8::MAX)
        .filter(|byte| !b"\r\n".contains(byte))
        .collect();
    let noise = (select(begins), vec(any::<u8>(), 0..200))
        .prop_map(|(first, rest)| [vec![first], rest].concat());
    let line = prop_oneof![
        noise,
        select(
            &[
                "GET / HTTP/1.1\r\n",
                "POST /bookings HTTP/1.1\r\ncontent-length: x\r\n",
                "GET / HTTP/9\r\n"
            ][..]
        )
        .prop_map(|line| line.as_bytes().to_vec()),
        // Mostly longer than a head may be.
        (1..200_usize).prop_map(|kilobytes| [
            b"GET /",
            "a".repeat(kilobytes * 1024).as_bytes(),
            b" HTTP/1.1\r\n"
        ]
        .concat()),
    ];
    let line_ends = vec(select(&["\n", "\r\n"][..]), 0..3).prop_map(|ends| ends.concat());
    (line_ends, vec(line, 1..3))
        .prop_map(|(line_ends, lines)| [line_ends.into_bytes(), lines.concat()].concat())
}

/// Sends bytes that are not HTTP, up to the end of what might be a head.
#[test]
fn bytes_that_are_no_request_get_an_answer_too() {
    run(500, garbage(), &target(), async |api, bytes| {
        let address = api.base.trim_start_matches("http://");
        let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
        let bytes = [bytes, b"\r\n\r\n".as_slice()].concat();
        // The server may answer before all bytes are written.
        let writing = tokio::spawn(async move {
            write.write_all(&bytes).await.ok();
            write
        });
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let byte = timeout(ANSWERED_WITHIN, read.read_u8())
                .await
                .expect("a response in time");
            match byte {
                Ok(byte) => answer.push(byte),
                Err(error) => prop_assert!(false, "no answer: {error}, after {answer:?}"),
            }
        }
        prop_assert!(
            answer.starts_with(b"HTTP/1.1 4"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
        writing.abort();
        Ok(())
    });
}

/// A client that still sends its body gets the response.
#[tokio::test]
async fn an_oversized_body_is_refused_while_it_is_sent() {
    let api = Api::start().await;
    let body = vec![b' '; 8 * 1024 * 1024];
    let request = Client::new().post(format!("{}/shows", api.base));
    let answer = request
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 413);
}
