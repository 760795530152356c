//! Tests of the limits on clients: rates, bodies, requests in flight, connections, lists, origins.

mod server;

use std::time::Duration;

use reqwest::{Client, Method, StatusCode, header};
use serde_json::json;
use shared::api_key::{self, NewApiKey, Scope};
use testing::eventually;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::server::{Api, parse, the_show};

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_how_often_it_may() {
    let api = Api::start_with(|config| config.callers.requests_per_second = Some(2)).await;
    let get = async |path: &str| api.request(Method::GET, path).send().await.unwrap();
    let first = get("/shows/1").await;
    assert_eq!(first.headers()["ratelimit-policy"], "\"default\";q=2;w=1");
    assert_eq!(first.headers()["ratelimit"], "\"default\";r=1;t=1");
    // Half a second allows one more: back-to-back requests soon exceed the rate.
    let mut refused = get("/nowhere").await;
    for _ in 0..100 {
        if refused.status() != StatusCode::TOO_MANY_REQUESTS {
            refused = get("/shows/1").await;
        }
    }
    assert_eq!(refused.headers()["ratelimit"], "\"default\";r=0;t=1");
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    let (_, problem) = parse(refused).await;
    assert_eq!(problem["type"], "/problems/too-many-requests");
    assert_eq!(get("/health/ready").await.status(), StatusCode::OK);
    eventually("the caller may send requests again", async || {
        get("/shows").await.status() == StatusCode::OK
    })
    .await;
}

#[tokio::test]
async fn a_list_counts_as_many_requests() {
    let api = Api::start_with(|config| config.callers.requests_per_second = Some(150)).await;
    let get = async |path: &str| api.request(Method::GET, path).send().await.unwrap();
    let list = get("/bookings?limit=1000").await;
    assert_eq!(list.status(), StatusCode::OK);
    assert_eq!(list.headers()["ratelimit"], "\"default\";r=49;t=1");
    // Requests that each count as one would not exceed the rate so soon.
    let mut lists = 0;
    while get("/bookings?limit=1000").await.status() == StatusCode::OK {
        lists += 1;
        assert!(lists < 100, "a list counts too little");
    }
    // A caller whose rate is lower than the price of a list still gets one.
    let slow = api.another_with(|config| config.callers.requests_per_second = Some(2));
    let list = slow.request(Method::GET, "/shows?limit=1000");
    assert_eq!(list.send().await.unwrap().status(), StatusCode::OK);
}

/// A connection that is closed with unread bytes is reset, and a client that is still sending loses
/// the response. So the connection stays open, and the next request on it is answered too.
#[tokio::test]
async fn an_answer_reaches_a_client_whose_body_nobody_reads() {
    let api = Api::start().await;
    let address = api.base.trim_start_matches("http://");
    let length = 500_000;
    for (request, status) in [
        ("GET /openapi.json", "200"),
        ("GET /nowhere", "404"),
        ("POST /bookings", "413"),
    ] {
        let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
        let head = format!(
            "{request} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        let sent = [
            head.as_bytes(),
            &vec![b'x'; length],
            b"GET /health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        ]
        .concat();
        let sending = tokio::spawn(async move {
            write.write_all(&sent).await.expect("the server reads it");
            write
        });
        let mut answers = Vec::new();
        read.read_to_end(&mut answers).await.expect("no reset");
        let answers = String::from_utf8(answers).unwrap();
        assert!(
            answers.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}"
        );
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "{request}");
        sending.await.unwrap();
    }
}

/// A client that waits for `100 Continue` gets none for a body that is too long or not needed.
#[tokio::test]
async fn a_body_that_will_be_refused_is_not_asked_for() {
    let api = Api::start().await;
    let address = api.base.trim_start_matches("http://");
    for (head, expected) in [
        (
            "POST /shows HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 1000000",
            "413",
        ),
        (
            "POST /shows HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 16385",
            "413",
        ),
        (
            "POST /shows HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 16384",
            "100",
        ),
        (
            "POST /shows HTTP/1.1\r\ncontent-type: application/json\r\ntransfer-encoding: chunked",
            "100",
        ),
        ("POST /shows HTTP/1.1\r\ncontent-length: 9", "415"),
        (
            "POST /shows HTTP/1.1\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 9",
            "415",
        ),
        (
            "POST /bookings/1/confirm HTTP/1.1\r\ncontent-length: 1000000",
            "404",
        ),
        ("POST /nowhere HTTP/1.1\r\ncontent-length: 9", "404"),
    ] {
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = format!("{head}\r\nhost: x\r\nexpect: 100-continue\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer, format!("HTTP/1.1 {expected}"), "{head}");
    }
}

#[tokio::test]
async fn each_key_has_its_own_rate() {
    let open = Api::start().await;
    let make = async |name: &str, requests_per_second| {
        let new = NewApiKey {
            name,
            scopes: &[Scope::ShowsRead],
            requests_per_second,
        };
        api_key::create(&open.db.pool, &new).await.unwrap().reveal()
    };
    let keys = [
        (
            make("as all", None).await,
            "\"default\";q=50;w=1",
            "\"default\";r=49;t=1",
        ),
        (
            make("more", Some(7000)).await,
            "\"default\";q=7000;w=1",
            "\"default\";r=6999;t=1",
        ),
    ];
    let api = open.another_with(|config| {
        config.callers.require_keys = true;
        config.callers.requests_per_second = Some(50);
    });
    for (key, policy, remaining) in keys {
        let answer = api.request(Method::GET, "/shows/1").bearer_auth(key);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.headers()["ratelimit-policy"], policy);
        assert_eq!(answer.headers()["ratelimit"], remaining);
    }
}

#[tokio::test]
async fn requests_beyond_the_limit_are_answered_with_503_at_once() {
    let api = Api::start_with(|config| config.in_flight_max = 1).await;
    // A request is in flight as long as its body does not arrive.
    let address = api.base.trim_start_matches("http://");
    let mut slow = TcpStream::connect(address).await.unwrap();
    let head = "POST /shows HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\
                expect: 100-continue\r\n\r\n";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    slow.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    let (status, problem) = api.get("/shows").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(problem["type"], "/problems/overloaded");
    assert_eq!(api.get("/health/live").await.0, StatusCode::OK);
    slow.write_all(b"{\"seats\":").await.unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
    eventually("the permit is returned", async || {
        api.get("/shows").await.0 == StatusCode::OK
    })
    .await;
}

/// Returns a connection on which a request was answered.
async fn connect_and_ask(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    stream
}

async fn read_to_the_end(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // A reset ends the connection, too.
    let _ = stream.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_for_a_new_one() {
    let api = Api::start_with(|config| config.connections_max = 2).await;
    let address = api.base.trim_start_matches("http://");
    let idle = connect_and_ask(address).await;
    let mut unfinished = TcpStream::connect(address).await.unwrap();
    unfinished
        .write_all(b"GET /health/live HTTP/1.1\r\nho")
        .await
        .unwrap();
    let new = [
        connect_and_ask(address).await,
        connect_and_ask(address).await,
    ];
    read_to_the_end(idle).await;
    read_to_the_end(unfinished).await;
    drop(new);
}

#[tokio::test]
async fn a_connection_with_a_request_in_flight_is_not_closed_for_another_one() {
    let api = Api::start_with(|config| config.connections_max = 1).await;
    let address = api.base.trim_start_matches("http://");
    let mut first = TcpStream::connect(address).await.unwrap();
    let head = "POST /shows HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\
                expect: 100-continue\r\n\r\n";
    first.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    first.read_exact(&mut go_on).await.unwrap();
    let second = connect_and_ask(address);
    tokio::pin!(second);
    let waits = timeout(Duration::from_millis(200), &mut second).await;
    assert!(waits.is_err(), "the second connection waits");
    first.write_all(b"{\"seats\":").await.unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
    second.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_one_caller_does_not_read_leave_some_for_others() {
    let db = std::sync::Arc::new(testing::TestDatabase::new().await);
    let name = "x".repeat(200);
    sqlx::query("INSERT INTO shows (name, starts_at, seats, available_seats) SELECT $1, now(), 1, 1 FROM generate_series(1, 1000)")
        .bind(&name)
        .execute(&db.pool)
        .await
        .unwrap();
    let make_key = async |name: &str| {
        let new = NewApiKey {
            name,
            scopes: &[Scope::ShowsRead],
            requests_per_second: None,
        };
        api_key::create(&db.pool, &new).await.unwrap().reveal()
    };
    let (slow, other) = (make_key("slow").await, make_key("other").await);
    let api = Api::serve(db.clone(), |config| config.callers.require_keys = true);
    // Clients with a small receive buffer, which read nothing.
    let address: std::net::SocketAddr = api.base.trim_start_matches("http://").parse().unwrap();
    let ask = async || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let request = format!(
            "GET /shows?limit=1000 HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {slow}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    };
    let get = async |path: &str, key: &str| {
        let request = api.request(Method::GET, path).bearer_auth(key);
        request.send().await.unwrap().status()
    };
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(ask().await);
    }
    eventually("the caller's share of the permits is used up", async || {
        // Sends one more, in case an earlier poll took the permit of one of them.
        silent.push(ask().await);
        get("/shows", &slow).await == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    assert_eq!(get("/shows", &other).await, StatusCode::OK);
    assert_eq!(get("/shows/1", &slow).await, StatusCode::OK);
    drop(silent);
    eventually("the permits are returned", async || {
        get("/shows", &slow).await == StatusCode::OK
    })
    .await;
}

#[tokio::test]
async fn a_long_list_is_compressed_for_who_asks_for_it() {
    let api = Api::start().await;
    for _ in 0..20 {
        api.post("/shows", &the_show()).await;
    }
    let get = async |encoding: &str| {
        let request = Client::new().get(format!("{}/shows", api.base));
        request
            .header(header::ACCEPT_ENCODING, encoding)
            .send()
            .await
            .unwrap()
    };
    let plain = get("identity").await;
    assert!(plain.headers().get(header::CONTENT_ENCODING).is_none());
    let length = plain.bytes().await.unwrap().len();
    let packed = get("gzip").await;
    assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
    assert_eq!(packed.headers()[header::VARY], "accept-encoding");
    let packed = packed.bytes().await.unwrap();
    assert!(packed.len() * 4 < length, "{} of {length}", packed.len());
}

#[tokio::test]
async fn pages_of_other_origins_may_use_the_api_only_where_told() {
    let preflight = async |api: &Api, origin: &str| {
        let request = api.request(Method::OPTIONS, "/bookings");
        let request = request
            .header(header::ORIGIN, origin)
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
            .header(
                header::ACCESS_CONTROL_REQUEST_HEADERS,
                "authorization,idempotency-key",
            );
        let answer = request.send().await.unwrap();
        answer
            .headers()
            .get(header::ACCESS_CONTROL_ALLOW_ORIGIN)
            .cloned()
    };
    let closed = Api::start().await;
    assert_eq!(preflight(&closed, "https://a.example").await, None);
    let some = closed.another_with(|config| {
        config.cors_origins = vec![header::HeaderValue::from_static("https://a.example")];
        config.callers.require_keys = true;
    });
    assert_eq!(
        preflight(&some, "https://a.example").await.unwrap(),
        "https://a.example"
    );
    assert_eq!(preflight(&some, "https://b.example").await, None);
    // Pages of allowed origins can read errors too.
    let refused = some.request(Method::POST, "/bookings").json(&json!({}));
    let refused = refused
        .header(header::ORIGIN, "https://a.example")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        refused.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        "https://a.example"
    );
    let all = closed.another_with(|config| {
        config.cors_origins = vec![header::HeaderValue::from_static("*")];
    });
    assert_eq!(preflight(&all, "https://b.example").await.unwrap(), "*");
}
