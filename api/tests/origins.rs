//! Requests from web pages of other origins.
//!
//! Without API keys, such a page could make a browser on this machine use the API.

mod server;

use reqwest::{Method, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::server::{Api, alice, parse, the_show};

async fn problem_of(request: RequestBuilder) -> (StatusCode, Value) {
    let (status, problem) = parse(request.send().await.unwrap()).await;
    (status, problem["type"].clone())
}

/// A form, or a `fetch` without a preflight, needs no body and no content type.
#[tokio::test]
async fn a_page_of_another_origin_changes_nothing() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    api.post("/bookings", &alice(2)).await;
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for path in ["/bookings/1/cancel", "/bookings/1/confirm", "/shows"] {
            let request = api.request(Method::POST, path).header(name, value);
            let refused = (StatusCode::FORBIDDEN, json!("/problems/cross-origin"));
            assert_eq!(problem_of(request).await, refused, "{path} {name} {value}");
        }
    }
    let (_, booking) = api.get("/bookings/1").await;
    assert_eq!(booking["status"], "PENDING");

    let own = api.request(Method::POST, "/bookings/1/confirm");
    let own = own.header("origin", &api.base);
    assert_eq!(own.send().await.unwrap().status(), StatusCode::OK);
    let allowed = api.another_with(|config| {
        config.cors_origins = vec![header::HeaderValue::from_static("https://tickets.example")];
    });
    let request = allowed.request(Method::POST, "/bookings/1/cancel");
    let request = request
        .header("origin", "https://tickets.example")
        .header("sec-fetch-site", "cross-site");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}

/// DNS rebinding: a page whose own name resolves to this machine's address is of the same origin.
#[tokio::test]
async fn by_the_name_of_a_page_it_lists_nothing() {
    let api = Api::start().await;
    for (method, path) in [
        (Method::GET, "/bookings"),
        (Method::GET, "/shows"),
        (Method::POST, "/bookings"),
    ] {
        let request = api.request(method, path).header("host", "evil.example");
        let refused = (
            StatusCode::MISDIRECTED_REQUEST,
            json!("/problems/unknown-host"),
        );
        assert_eq!(problem_of(request).await, refused, "{path}");
    }
    let health = api.request(Method::GET, "/health/ready");
    let health = health.header("host", "evil.example").send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);

    let named =
        api.another_with(|config| config.callers.allowed_hosts = vec!["shop.internal".to_owned()]);
    let request = named.request(Method::GET, "/shows");
    let request = request.header("host", "shop.internal:5000");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}

/// A page of another origin has no API key.
#[tokio::test]
async fn where_keys_are_needed_pages_and_names_do_not_matter() {
    let api = Api::start_with(|config| config.callers.require_keys = true).await;
    let request = api.request(Method::POST, "/bookings/1/cancel");
    let request = request
        .header("host", "evil.example")
        .header("origin", "https://evil.example");
    let unauthorized = (
        StatusCode::UNAUTHORIZED,
        json!("/problems/api-key-required"),
    );
    assert_eq!(problem_of(request).await, unauthorized);
}

/// A proxy in front of the API may have used another one of several `Host` headers.
#[tokio::test]
async fn a_request_says_once_which_host_it_is_for() {
    let api = Api::start_with(|config| config.callers.require_keys = true).await;
    let address = api.base.trim_start_matches("http://");
    for (head, expected) in [
        ("GET /health/live HTTP/1.1\r\n", "400"),
        ("GET /health/live HTTP/1.1\r\nhost: a\r\nhost: b\r\n", "400"),
        ("GET /health/live HTTP/1.1\r\nhost: a\r\nhost: a\r\n", "400"),
        ("GET /health/live HTTP/1.0\r\nhost: a\r\nhost: b\r\n", "400"),
        ("GET /health/live HTTP/1.1\r\nhost: a\r\n", "200"),
        ("GET /health/live HTTP/1.0\r\n", "200"),
    ] {
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!("{head}connection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1);
        assert_eq!(status, Some(expected), "{head}: {answer}");
    }
}

#[tokio::test]
async fn what_is_said_of_buyers_stays_in_no_shared_cache() {
    let api = Api::start().await;
    api.post("/shows", &the_show()).await;
    api.post("/bookings", &alice(2)).await;
    let cache = async |path: &str| {
        let answer = api.request(Method::GET, path).send().await.unwrap();
        let headers = answer.headers().clone();
        headers[header::CACHE_CONTROL].to_str().unwrap().to_owned()
    };
    for path in ["/bookings", "/bookings/1", "/bookings/2"] {
        assert_eq!(cache(path).await, "private, no-cache", "{path}");
    }
    assert_eq!(cache("/shows/1").await, "no-cache");
    let sales = api.client.get(format!("{}/sales", api.admin));
    let sales = sales.send().await.unwrap();
    assert_eq!(sales.headers()[header::CACHE_CONTROL], "private, no-cache");
}
