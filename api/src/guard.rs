//! What every request goes through.

use std::{any::Any, net::IpAddr, panic::AssertUnwindSafe, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{
        HeaderName, HeaderValue, Method, Request,
        header::{
            AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_MATCH,
            IF_NONE_MATCH, LINK, LOCATION, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use hyper::body::Incoming;
use shared::telemetry::traces;
use tokio::time::{Instant, timeout};
use tower::ServiceExt;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument;

use crate::{
    access::Access,
    limits::{Allowance, Limits},
    metrics::Routes,
    problem::Problem,
    unread::{self, Unread},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id taken over from a client, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The longest that a request may take, the arrival of its body included. A statement takes 10 s at most.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Where load balancers ask. They have no key, and are not to be turned away because others ask for too much.
const HEALTH: &str = "/health/";

/// What stands before the routes.
pub(crate) struct Guard {
    pub(crate) routes: Router,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    /// By which requests are counted.
    pub(crate) counted: Routes,
    pub(crate) cors_origins: Vec<HeaderValue>,
}

impl Guard {
    /// Answers a request: gives it an id, the client's own if it sent a sensible one, which is on every log line of the
    /// request and in the answer; gives the answer the headers that keep browsers from making more of it than it is.
    ///
    /// It is one function because each layer costs every request an allocation or two.
    pub(crate) async fn answer(&self, peer: IpAddr, request: Request<Incoming>) -> Response {
        let id = request
            .headers()
            .get(REQUEST_ID)
            .filter(|id| is_sensible(id))
            .cloned()
            .unwrap_or_else(random_id);
        let span = tracing::info_span!(
            "request",
            id = id.to_str().unwrap_or_default(),
            method = %request.method(),
            path = request.uri().path(),
        );
        let traceparent = request.headers().get(traces::TRACEPARENT);
        traces::continue_with(&span, traceparent.and_then(|value| value.to_str().ok()));
        let method = request.method().clone();
        let route = self.counted.find(request.uri().path());
        let began = Instant::now();
        let (request, unread) = Unread::of(request);
        let mut response = self.admit(peer, request).instrument(span).await;
        route.count(&method, response.status(), began.elapsed());
        if let Some(rest) = unread.and_then(Unread::rest) {
            // Apart, since hardly a request needs it, and each would keep room for it.
            Box::pin(unread::discard(rest)).await;
        }
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, id);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // What is true now may not be so in a moment: to be asked for anew each time, with the `ETag` where there is one.
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-cache"));
        headers
            .entry(CONTENT_SECURITY_POLICY)
            .or_insert(HeaderValue::from_static(
                "default-src 'none'; frame-ancestors 'none'",
            ));
        response
    }

    /// Lets a request in whose sender has not asked for too much, and tells who sent it. Whether the sender may do what it
    /// asks for is up to the handler.
    async fn admit(&self, peer: IpAddr, mut request: Request<Body>) -> Response {
        if request.uri().path().starts_with(HEALTH) {
            return self.route(request).await;
        }
        let identity = self.access.identify(peer, request.headers());
        let allowance = self.limits.count(&identity, peer, request.headers());
        let mut response = if allowance.as_ref().is_some_and(Allowance::is_exceeded) {
            Problem::TooManyRequests.into_response()
        } else if let Some(_place) = self.limits.place() {
            request.extensions_mut().insert(identity);
            self.route(request).await
        } else {
            Problem::Overloaded.into_response()
        };
        if let Some(allowance) = allowance {
            allowance.write(response.headers_mut());
        }
        response
    }

    /// Calls the handler, and answers for one that takes too long or panics.
    async fn route(&self, request: Request<Body>) -> Response {
        let began = Instant::now();
        let answered = AssertUnwindSafe(timeout(TIME_LIMIT, self.routes.clone().oneshot(request)))
            .catch_unwind()
            .await;
        let response = match answered {
            Ok(Ok(Ok(response))) => response,
            Ok(Err(_)) => Problem::TimedOut.into_response(),
            Err(panic) => Problem::Panicked(panic_message(&*panic)).into_response(),
        };
        let status = response.status().as_u16();
        tracing::debug!(status, elapsed = ?began.elapsed(), "answered");
        response
    }

    /// Tells browsers which pages of other origins may use the API; none when there is none.
    pub(crate) fn cors(&self) -> Option<CorsLayer> {
        let origins = match self.cors_origins.as_slice() {
            [] => return None,
            [all] if all == "*" => AllowOrigin::any(),
            some => AllowOrigin::list(some.to_vec()),
        };
        let sent = [
            AUTHORIZATION,
            CONTENT_TYPE,
            IF_MATCH,
            IF_NONE_MATCH,
            REQUEST_ID,
        ];
        let own_sent = [HeaderName::from_static("idempotency-key")];
        let read = [ETAG, LINK, LOCATION, RETRY_AFTER, REQUEST_ID];
        let own_read = ["idempotency-replayed", "ratelimit", "ratelimit-policy"];
        let own_read = own_read.map(HeaderName::from_static);
        Some(
            CorsLayer::new()
                .allow_origin(origins)
                .allow_methods([Method::GET, Method::POST])
                .allow_headers([&sent[..], &own_sent].concat())
                .expose_headers([&read[..], &own_read].concat())
                .max_age(Duration::from_hours(1)),
        )
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

fn is_sensible(id: &HeaderValue) -> bool {
    (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn random_id() -> HeaderValue {
    let id = format!("{:032x}", fastrand::u128(..));
    HeaderValue::from_maybe_shared(id).expect("hexadecimal digits are a valid header value")
}
