//! Traces, as an OpenTelemetry collector receives them.

mod system;

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, routing::post};
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span,
};
use prost::Message;
use serde_json::{Value, json};
use sqlx::PgPool;
use testing::{DataDir, eventually, let_pass};
use tokio::net::TcpListener;

use crate::system::Up;

/// Spans that the collector received, each with the name of the process that sent it.
type Received = Arc<Mutex<Vec<(String, Span)>>>;

/// Starts a collector; returns the spans that it receives and its URL.
async fn collector() -> (Received, String) {
    let received = Received::default();
    let routes = Router::new()
        .route("/v1/traces", post(receive))
        .with_state(received.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, routes).await });
    (received, address)
}

async fn receive(State(received): State<Received>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    for process in request.resource_spans {
        let resource = format!("{:?}", process.resource);
        let name = ["first", "second"]
            .into_iter()
            .find(|name| resource.contains(&format!("{name:?}")));
        let name = name.expect("a known process").to_owned();
        let spans = process
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans);
        received
            .lock()
            .unwrap()
            .extend(spans.map(|span| (name.clone(), span)));
    }
}

fn find(received: &Received, name: &str, is_it: impl Fn(&Span) -> bool) -> Option<(String, Span)> {
    let received = received.lock().unwrap();
    let mut found = received
        .iter()
        .filter(|(_, span)| span.name == name && is_it(span));
    found.next().cloned()
}

/// Waits for a span, which may arrive late.
async fn until(received: &Received, name: &str, is_it: impl Fn(&Span) -> bool) -> (String, Span) {
    let mut found = None;
    eventually(&format!("a span {name}"), async || {
        found = find(received, name, &is_it);
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn a_trace_goes_from_a_request_to_the_job_in_another_process_and_back_to_all_of_its_batch() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let (received, endpoint) = collector().await;
    let start = async |data: &DataDir, name: &str, args: &[&str]| {
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_SERVICE_NAME", name),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ];
        Up::start_in(&data.0, args, &environment).await
    };
    let data = DataDir::new("traces");
    let mut up = start(&data, "first", &["--trust-traceparent"]).await;
    let pool = PgPool::connect(&up.database).await.unwrap();
    let client = reqwest::Client::new();
    let show =
        json!({"name": "Morning Show", "startTime": "2025-12-10 10:00:00", "seats": 100_000});
    client
        .post(format!("{}/shows", up.api))
        .json(&show)
        .send()
        .await
        .unwrap();

    let booking = json!({"showId": 1, "userName": "Alice", "numberOfSeats": 1});
    let book = |number: u64| {
        let request = client
            .post(format!("{}/bookings", up.api))
            .header("traceparent", format!("00-{TRACE}-{number:016x}-01"))
            .json(&booking);
        tokio::spawn(async move { request.send().await.unwrap().json::<Value>().await.unwrap() })
    };
    // The first one is alone.
    assert_eq!(book(1).await.unwrap()["status"], "PENDING");
    // Requests that arrive while a transaction runs share the next one.
    let shared = |span: &Span| !span.links.is_empty();
    let mut numbers = 2..;
    eventually("requests share a transaction", async || {
        let burst: Vec<_> = numbers.by_ref().take(8).map(book).collect();
        for booked in burst {
            assert_eq!(booked.await.unwrap()["status"], "PENDING");
        }
        find(&received, "transaction", shared).is_some()
    })
    .await;

    let of_trace = |span: &Span| {
        format!(
            "{:032x}",
            u128::from_be_bytes(span.trace_id.clone().try_into().unwrap())
        ) == TRACE
    };
    let (_, request) = until(&received, "request", |span| {
        of_trace(span) && span.parent_span_id == 1_u64.to_be_bytes()
    })
    .await;
    // The span of a batch's transaction has the first member's request as its parent, and links to
    // all members.
    let (_, transaction) = until(&received, "transaction", shared).await;
    assert!(of_trace(&transaction));
    let is_linked = |span: &Span| {
        span.links
            .iter()
            .any(|link| link.span_id == transaction.span_id)
    };
    until(&received, "request", is_linked).await;

    up.signal(Signal::SIGTERM);
    up.process.wait().await.unwrap();
    pool.close().await;
    let up = start(&data, "second", &[]).await;
    let pool = PgPool::connect(&up.database).await.unwrap();
    let_pass(&pool, 200).await;
    let is_child = |span: &Span| span.parent_span_id == transaction.span_id;
    let (process, job) = until(&received, "job", is_child).await;
    assert_eq!(process, "second");
    assert!(of_trace(&job));
    // The transaction of a single request runs in that request's span.
    until(&received, "job", |span| {
        span.parent_span_id == request.span_id
    })
    .await;
}
